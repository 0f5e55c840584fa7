# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C in whatever blocks is seen at once, and leaves nothing."""

import signal
import subprocess
import unittest

import support
from support import FIXTURE

# Each is ended long before by its time-out only if the signal is not seen.
SPAWN = """
import sys, kp
kp.spawn([sys.argv[1], "never"], startup_timeout=100)
"""
WAIT = """
import sys, kp
with kp.spawn([sys.argv[1], "serve"]) as proxy:
    proxy.wait()
"""
STOP = """
import sys, kp
with kp.spawn([sys.argv[1], "deaf"], stop_grace=100) as proxy:
    print("stopping", flush=True)
    try:
        proxy.stop()
    except KeyboardInterrupt:
        print("closing", flush=True)
        raise
"""
# The end of the body, which tells its first SIGTERM.
CLOSE = """
import sys, kp
script = 'trap "echo stopping" TERM; "$0" deaf & while :; do wait; done'
with kp.spawn(["sh", "-c", script, sys.argv[1]], stop_grace=100, log=1) as proxy:
    pass
"""
RESTART = """
import os, sys, kp
script = 'test -e "$1" && exec "$0" never; : >"$1"; exec "$0" serve'
with kp.spawn(["sh", "-c", script, *sys.argv[1:]], startup_timeout=100) as proxy:
    print(proxy.pid, flush=True)
    proxy.restart()
"""
ASYNC = """
import asyncio, sys, kp
async def main():
    async with kp.spawn_async([sys.argv[1], "never"], startup_timeout=100):
        pass
asyncio.run(main())
"""
HANDLER = """
import signal, sys, kp
signal.signal(signal.SIGUSR1, lambda *_: print("handled", flush=True))
with kp.spawn([sys.argv[1], "serve"]) as proxy:
    try:
        print("ready", flush=True)
        proxy.wait(100)
    except KeyboardInterrupt:
        print("alive" if proxy.alive else "dead")
"""


class Interrupt(support.TestCase):
    def host(self, script, *args, **more):
        # What a shell runs in the background has SIGINT ignored, and Python leaves it so.
        heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        return super().host(heard + script, *args, **more)

    def interrupted(self, host):
        """The host has ended by a SIGINT, and its children with it."""
        left = support.children(host.pid)
        host.send_signal(signal.SIGINT)
        output, errors = host.communicate(timeout=support.PATIENCE)
        self.assertEqual(host.returncode, -signal.SIGINT, errors)
        self.assertIn("KeyboardInterrupt", errors)
        self.assertNotIn("ResourceWarning", errors)
        self.assert_gone(*left)
        return output

    def started(self, host, mode):
        """Waits for a proxy in this mode."""
        support.wait_until(
            lambda: [FIXTURE, mode] in map(support.arguments, support.children(host.pid)), "the proxy starts")

    def test_start(self):
        host = self.host(SPAWN, FIXTURE)
        self.started(host, "never")
        self.interrupted(host)

    def test_wait(self):
        host = self.host(WAIT, FIXTURE)
        self.started(host, "serve")
        self.interrupted(host)

    def test_stop(self):
        host = self.host(STOP, FIXTURE)
        self.started(host, "deaf")
        self.assertEqual(host.stdout.readline(), "stopping\n")
        # The first ends stop(), and close() begins with the same grace.
        host.send_signal(signal.SIGINT)
        self.assertEqual(host.stdout.readline(), "closing\n")
        with self.assertRaises(subprocess.TimeoutExpired):
            host.wait(0.3)
        self.interrupted(host)

    def test_close(self):
        host = self.host(CLOSE, FIXTURE)
        self.assertEqual(host.stdout.readline(), "stopping\n")
        self.interrupted(host)

    def test_restart(self):
        host = self.host(RESTART, FIXTURE, self.path("marker"))
        host.stdout.readline()
        self.started(host, "never")
        self.interrupted(host)

    def test_start_on_a_loop(self):
        host = self.host(ASYNC, FIXTURE)
        self.started(host, "never")
        self.interrupted(host)

    def test_other_handlers_run_and_the_wait_goes_on(self):
        host = self.host(HANDLER, FIXTURE)
        self.assertEqual(host.stdout.readline(), "ready\n")
        for _ in range(3):
            host.send_signal(signal.SIGUSR1)
            self.assertEqual(host.stdout.readline(), "handled\n")
        host.send_signal(signal.SIGINT)
        output, errors = host.communicate(timeout=support.PATIENCE)
        self.assertEqual((host.returncode, output, errors), (0, "alive\n", ""))


if __name__ == "__main__":
    unittest.main()
