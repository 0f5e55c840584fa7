# SPDX-License-Identifier: Apache-2.0
"""The README's examples, as they stand there, compile and do what they say.

The mitmdump that they start is the fixture's CONNECT proxy under that name, so that this
needs no package; curl and the origin are real. Takes its paths from the environment:
README, INCLUDE, LIBKP (the shared library), KP_RUN, PYTHONPATH, FIXTURE, ORIGIN.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ANSWER = "Hello from behind the proxy."
NAME = "origin.kp.test"  # the fixture resolves it, curl can't


def block(language: str) -> str:
    with open(os.environ["README"], encoding="utf-8") as file:
        found = re.findall(rf"```{language}\n(.*?)```", file.read(), re.DOTALL)
    assert len(found) == 1, f"the README has {len(found)} examples in {language}"
    return found[0]


@unittest.skipUnless(shutil.which("curl"), "curl is not installed")
class Examples(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.dir)
        self.write("mitmdump", '#!/bin/sh\nexec "$FIXTURE" serve\n')
        os.chmod(os.path.join(self.dir, "mitmdump"), 0o755)
        self.start_origin()
        library = os.path.dirname(os.environ["LIBKP"])
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")},
            "PATH": os.pathsep.join(
                [self.dir, os.path.dirname(os.environ["KP_RUN"]), os.environ["PATH"]]
            ),
            "LD_LIBRARY_PATH": library,
        }

    def write(self, name: str, text: str) -> str:
        path = os.path.join(self.dir, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def start_origin(self):
        origin = subprocess.Popen(
            [sys.executable, os.environ["ORIGIN"], ANSWER],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.addCleanup(origin.stdout.close)
        self.addCleanup(origin.wait)
        self.addCleanup(origin.kill)
        self.url = f"http://{NAME}:{int(origin.stdout.readline())}/"

    def fetches(self, *command: str):
        done = subprocess.run(
            [*command, self.url], env=self.env, capture_output=True, text=True, timeout=60
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout.strip(), ANSWER, done.stderr)

    def compiled(self, compiler: str, source: str, *options: str) -> str:
        program = os.path.join(self.dir, "example")
        library = os.path.dirname(os.environ["LIBKP"])
        subprocess.run(
            [*compiler.split(), *options, "-Wall", "-Wextra", "-Werror", source, "-o", program]
            + [f"-I{os.environ['INCLUDE']}", f"-L{library}", "-lkp"],
            check=True,
            timeout=120,
        )
        return program

    def test_shell(self):
        self.fetches("sh", self.write("example.sh", block("sh")))

    def test_python(self):
        self.fetches(sys.executable, self.write("example.py", block("python")))

    def test_c(self):
        source = self.write("example.c", block("c"))
        self.fetches(self.compiled(os.environ.get("CC", "cc"), source))

    def test_cpp(self):
        source = self.write("example.cpp", block("cpp"))
        self.fetches(self.compiled(os.environ.get("CXX", "c++"), source, "-std=c++17"))


if __name__ == "__main__":
    unittest.main()
