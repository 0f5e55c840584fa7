# SPDX-License-Identifier: Apache-2.0
"""Proxies that nobody closes, and copies of them in forked children."""

import gc
import os
import threading
import unittest
import warnings

import kp
import support
from support import FIXTURE, fixture


class Collected(support.TestCase):
    def test_is_stopped_with_a_warning(self):
        proxy = kp.spawn(fixture("serve"))
        pid = proxy.pid
        with self.assertWarnsRegex(ResourceWarning, "never closed"):
            del proxy
            gc.collect()
        self.assert_gone(pid)

    def test_is_stopped_where_warnings_are_errors(self):
        script = ('import sys, kp; proxy = kp.spawn([sys.argv[1], "serve"]); pid = proxy.pid; del proxy\n'
                  'import os; os.kill(pid, 0)')
        _, _, errors = self.run_host("import warnings; warnings.simplefilter('error')\n" + script, FIXTURE)
        self.assertIn("ResourceWarning", errors)
        self.assertIn("ProcessLookupError", errors)

    def test_is_waited_for_while_other_threads_go_on(self):
        kept = [kp.spawn(fixture("deaf"), stop_grace=0.5)]
        thread = threading.Thread(target=kept.clear)
        ticks = 0
        with self.assertWarns(ResourceWarning):
            thread.start()
            while thread.is_alive():
                thread.join(0.01)
                ticks += 1
        self.assertGreater(ticks, 5)

    def test_closed_one_is_silent(self):
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            with kp.spawn(fixture("serve")):
                pass
            with self.assertRaises(kp.SpawnError):
                kp.spawn(["/no/such/program"])
            kp.spawn_async(fixture("serve"))
            gc.collect()
        self.assertEqual([str(each.message) for each in warned], [])


class Exit(support.TestCase):
    """However the interpreter ends, the proxy does."""

    def check(self, script, status, words=""):
        ended, output, errors = self.run_host(f"import sys, kp\n{script}", FIXTURE)
        self.assertEqual(ended, status, errors)
        self.assertIn(words, errors)
        self.assert_gone(int(output))

    def test_end_of_the_program(self):
        self.check("proxy = kp.spawn([sys.argv[1], 'serve']); print(proxy.pid)", 0, "ResourceWarning")

    def test_exception(self):
        self.check("proxy = kp.spawn([sys.argv[1], 'serve']); print(proxy.pid); 1 / 0", 1, "ZeroDivisionError")

    def test_exit_in_the_body(self):
        self.check("with kp.spawn([sys.argv[1], 'serve']) as proxy: print(proxy.pid); sys.exit(5)", 5)

    def test_thread_that_still_waits(self):
        self.check("import threading\n"
                   "proxy = kp.spawn([sys.argv[1], 'serve']); print(proxy.pid)\n"
                   "threading.Thread(target=proxy.wait, daemon=True).start()", 0)

    def test_loop_that_was_left(self):
        self.check("import asyncio\n"
                   "async def main(): return await kp.spawn_async([sys.argv[1], 'serve'])\n"
                   "proxy = asyncio.run(main()); print(proxy.pid)", 0)

    def test_killed(self):
        """By the guard, with the environment that the package gives it."""
        host = self.host("import sys, time, kp\n"
                         "proxy = kp.spawn([sys.argv[1], 'serve']); print(proxy.pid, flush=True)\n"
                         "time.sleep(60)", FIXTURE)
        pid = int(host.stdout.readline())
        host.kill()
        self.assert_gone(pid)


class Fork(support.TestCase):
    """What a forked child does with its copy is nothing to the parent's proxy."""

    PARENT = """
import gc, os, sys, kp
proxy = kp.spawn([sys.argv[1], "serve"])
pid = os.fork()
if pid == 0:
    BODY
status = os.waitpid(pid, 0)[1]
assert status == 0, status
assert proxy.alive
import socket
socket.create_connection(("127.0.0.1", proxy.port), 20).close()
proxy.close()
print("well")
"""

    def check(self, *body):
        done = self.run_host(self.PARENT.replace("BODY", "\n    ".join(body)), FIXTURE)
        self.assertEqual(done, (0, "well\n", ""))

    def test_exits(self):
        self.check("sys.exit(0)")

    def test_collects(self):
        self.check("del proxy", "gc.collect()", "os._exit(0)")

    def test_closes(self):
        self.check("proxy.close()", "proxy.close()", "os._exit(proxy.alive)")

    def test_leaves_the_body(self):
        self.check("with proxy: pass", "sys.exit(0)")

    def test_looks(self):
        self.check("assert proxy.alive and proxy.state is kp.State.READY and proxy.exit_status is None",
                   "assert proxy.env({})['https_proxy'] == proxy.url",
                   "os._exit(0)")

    def test_is_told_that_it_is_a_copy(self):
        self.check("for call in proxy.stop, proxy.restart, proxy.wait:",
                   "    try: call(); os._exit(1)",
                   "    except kp.ForkedError: pass",
                   "os._exit(0)")

    def test_has_a_proxy_of_its_own(self):
        self.check("with kp.spawn([sys.argv[1], 'serve']) as own:",
                   "    assert own.alive and own.port != proxy.port",
                   "assert not own.alive",
                   "os._exit(0)")

    def test_of_an_asynchronous_one(self):
        script = """
import asyncio, os, sys, kp
async def main():
    async with kp.spawn_async([sys.argv[1], "serve"]) as proxy:
        pid = os.fork()
        if pid == 0:
            assert proxy.alive
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert proxy.alive
        await proxy.restart()
asyncio.run(main())
"""
        status, _, errors = self.run_host(script, FIXTURE)
        self.assertEqual(status, 0, errors)
        self.assertNotIn("Warning", errors)  # A slow machine makes asyncio talk.

    def test_closes_an_asynchronous_one(self):
        script = """
import asyncio, os, signal, sys, kp
async def main():
    async with kp.spawn_async([sys.argv[1], "serve"]) as proxy:
        pid = os.fork()
        if pid == 0:
            asyncio.run(proxy.close())
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        os.kill(proxy.pid, signal.SIGKILL)
        print(await asyncio.wait_for(proxy.wait(), 20))
asyncio.run(main())
"""
        status, output, errors = self.run_host(script, FIXTURE)
        self.assertEqual((status, output), (0, "ExitStatus(code=None, signal=9)\n"), errors)


if __name__ == "__main__":
    unittest.main()
