# SPDX-License-Identifier: Apache-2.0
"""kp-run as pid 1 of a container, or of a pid namespace."""

import os
import signal
import subprocess
import unittest

import test_kp_run
from test_kp_run import KP_RUN, PATIENCE, TestCase, wait_until

NAMESPACE = ["unshare", "-Urpf", "--mount-proc", "--kill-child"]

# The states of the children of pid 1.
CHILDREN = ("for stat in /proc/[0-9]*/stat; do cut -d' ' -f3,4 $stat; done 2>/dev/null | "
            "sed -n 's/ 1$//p' | sort | uniq -c")


def is_refused():
    done = subprocess.run([*NAMESPACE, "true"], check=False, capture_output=True, timeout=PATIENCE)
    return done.returncode != 0


@unittest.skipIf(is_refused(), "where no pid namespace can be made")
class Init(TestCase):
    def run_as_init(self, *arguments):
        return subprocess.run([*NAMESPACE, KP_RUN, *arguments], check=False, text=True,
                              capture_output=True, timeout=PATIENCE)

    def test_reaps_what_the_command_orphans(self):
        script = f"""
            for i in 1 2 3; do sh -c 'sleep 0.1 &'; done
            for i in 1 2 3 4 5 6 7 8 9 10; do
                sleep 0.2
                {CHILDREN} | grep Z || exit 7
            done"""
        done = self.run_as_init(self.fixture("serve"), "--", "sh", "-c", script)
        self.assertEqual(done.returncode, 7, done.stdout + done.stderr)

    def test_leaves_the_proxys_status_to_the_library(self):
        done = self.run_as_init("-v", self.fixture("exit-when-asked", "3"), "--",
                                *test_kp_run.ASK_TO_EXIT)
        self.assertRegex(done.stderr, "kp-run: proxy .* is gone .*: exited with status 3\n")

    def test_ends_with_the_commands_status(self):
        for script, status in (("exit 7", 7), ("kill -TERM $$", 128 + signal.SIGTERM)):
            done = self.run_as_init(self.fixture("serve"), "--", "sh", "-c", script)
            self.assertEqual(done.returncode, status)

    def test_hands_signals_on(self):
        script = "trap 'echo told; exit 7' TERM; echo ready; while :; do sleep 0.05; done"
        command = [*NAMESPACE, KP_RUN, self.fixture("serve"), "--", "sh", "-c", script]
        with subprocess.Popen(command, text=True, stdout=subprocess.PIPE) as process:
            try:
                self.assertEqual(process.stdout.readline(), "ready\n")
                with open(f"/proc/{process.pid}/task/{process.pid}/children", encoding="ascii") as file:
                    os.kill(int(file.read().split()[0]), signal.SIGTERM)
                self.assertEqual(process.communicate(timeout=PATIENCE)[0], "told\n")
                self.assertEqual(process.returncode, 7)
            finally:
                process.kill()

    def test_a_signal_ends_the_start(self):
        command = [*NAMESPACE, KP_RUN, "-t", "60", self.fixture("never"), "--", "echo", "ran"]
        with subprocess.Popen(command, text=True, stdout=subprocess.PIPE) as process:
            try:
                wait_until(self.proxies, "the proxy starts")
                with open(f"/proc/{process.pid}/task/{process.pid}/children", encoding="ascii") as file:
                    os.kill(int(file.read().split()[0]), signal.SIGTERM)
                self.assertEqual(process.communicate(timeout=PATIENCE)[0], "")
                self.assertEqual(process.returncode, 128 + signal.SIGTERM)
            finally:
                process.kill()

    def end_proxies(self):
        """Their numbers are those of a namespace that is gone, with all that was in it."""


if __name__ == "__main__":
    test_kp_run.setUpModule()
    unittest.main()
