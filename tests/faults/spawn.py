#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What happens inside of posix_spawn(), in the host and in its child, fails: by strace --inject.

    spawn.py PROGRAM

PROGRAM lives a life as it does for a failed posix_spawn(), and checks what is left and what was said.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

PROGRAM = ""
LIVES = ("guarded", "rich")
WAYS = ("blocking", "stepping")

# In the child each fails at its first call: of the guard, or of a proxy without one.
OF_CHILD = {
    "execve": ("ENOENT", "EACCES", "EPERM", "ENOMEM", "E2BIG", "ETXTBSY", "EAGAIN", "EMFILE", "EIO"),
    "/^dup[23]$": ("EBUSY", "EINTR", "EMFILE"),
    "close_range": ("ENOSYS", "EPERM", "ENOMEM"),
    "setpgid": ("EACCES", "EPERM"),
    "chdir": ("EACCES", "EIO", "ENOMEM"),
}
# In the child too, of the null device alone: the guard's output, the proxy's standard input.
OF_NULL = ("EMFILE", "ENFILE", "ENOMEM", "EACCES")
# In the host. (Its mmap() can't be told from the loader's: strace counts for each process anew.)
OF_HOST = {"clone3": ("EAGAIN", "ENOMEM", "EPERM")}


def trace(arguments, inject=None, path=None):
    """The status, what was said, and the lines of the trace."""
    with tempfile.NamedTemporaryFile("r", encoding="utf-8", errors="replace") as log:
        command = ["strace", "-f", "-qq", "-o", log.name]
        if inject is not None:
            command += ["-e", "inject=" + inject]
        if path is not None:
            command += ["-P", path]
        done = subprocess.run([*command, PROGRAM, "replay", *arguments], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=60, check=False)
        return done.returncode, done.stdout.decode(errors="replace"), log.read().splitlines()


def expecting(life, way, error):
    """What makes it expect that posix_spawn() fails, but not make it fail: there is no call 0."""
    return [life, way, "posix_spawnp", "0", error, "once"]


def can_trace():
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-qq", "-o", os.devnull, "true"], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, check=False).returncode == 0


class InsideOfSpawn(unittest.TestCase):
    injected = 0

    def live(self, life, way, error, inject, path=None):
        status, said, lines = trace(expecting(life, way, error), inject, path)
        self.assertTrue(any("(INJECTED)" in line for line in lines), "nothing has failed")
        self.assertEqual(0, status, said)
        InsideOfSpawn.injected += 1

    def each(self, calls, places):
        for life in LIVES:
            for way in WAYS:
                for call, errors in calls.items():
                    for nth in places(life, way, call):
                        for error in errors:
                            with self.subTest(life=life, way=way, call=call, nth=nth, error=error):
                                self.live(life, way, error, f"{call}:error={error}:when={nth}")

    def test_in_the_child(self):
        self.each(OF_CHILD, lambda life, way, call: [1])

    def test_opening_the_null_device(self):
        for life in LIVES:
            for way in WAYS:
                for error in OF_NULL:
                    with self.subTest(life=life, way=way, error=error):
                        self.live(life, way, error, f"openat:error={error}:when=1", os.devnull)

    def test_in_the_host(self):
        def places(life, way, call):
            lines = trace(expecting(life, way, "EAGAIN"))[2]
            host = next(line for line in lines if " clone3(" in line).split()[0]
            own = [line for line in lines if re.match(rf"{host} +{call}\(", line)]
            return range(1, len(own) + 1)
        self.each(OF_HOST, places)


if __name__ == "__main__":
    PROGRAM = sys.argv.pop(1)
    if not can_trace():
        print("SKIP: nothing can be traced here")
        sys.exit(1 if os.environ.get("KP_TEST_REQUIRE") == "1" else 77)
    result = unittest.main(exit=False, verbosity=1)
    print(f"faults injected inside of posix_spawn: {InsideOfSpawn.injected}")
    sys.exit(0 if result.result.wasSuccessful() and InsideOfSpawn.injected else 1)
