# SPDX-License-Identifier: Apache-2.0
"""A proxy's life on an asyncio loop."""

import asyncio
import contextlib
import os
import signal
import threading
import time
import unittest
from unittest import mock

import kp
import support
from kp import _ffi
from support import FIXTURE, fixture


class AsyncTestCase(unittest.IsolatedAsyncioTestCase, support.TestCase):
    async def bounded(self, awaitable):
        return await asyncio.wait_for(awaitable, support.PATIENCE)

    async def until(self, condition, what):
        end = time.monotonic() + support.PATIENCE
        while not condition():
            self.assertLess(time.monotonic(), end, "waited in vain: " + what)
            await asyncio.sleep(0.01)

class Start(AsyncTestCase):
    async def test_is_ready(self):
        async with kp.spawn_async(fixture("late", 50)) as proxy:
            self.assertIs(proxy.state, kp.State.READY)
            self.assertTrue(proxy.alive)
            self.assertTrue(support.listens(proxy.port))
            self.assertEqual(proxy.env({})["https_proxy"], proxy.url)
        self.assert_gone(proxy.pid)
        self.assertEqual(proxy.exit_status, kp.ExitStatus(None, signal.SIGTERM))

    async def test_awaited(self):
        proxy = await kp.spawn_async(fixture("serve"))
        try:
            self.assertTrue(proxy.alive)
            async with proxy as same:
                self.assertIs(same, proxy)
            self.assertFalse(proxy.alive)
        finally:
            await proxy.close()

    async def test_a_child_gets_through(self):
        async with kp.spawn_async(fixture("serve")) as proxy:
            self.assertEqual(support.tunnel(proxy), (b"200", b"there and back"))

    async def test_only_once(self):
        unstarted = kp.spawn_async(fixture("serve"))
        self.assertEqual((unstarted.alive, unstarted.state), (False, kp.State.EXITED))
        with self.assertRaises(kp.StateError):
            unstarted.env()
        async with unstarted as proxy:
            with self.assertRaises(kp.StateError):
                await proxy
            self.assertTrue(proxy.alive, "the second start leaves the first alone")
        with self.assertRaises(kp.StateError):
            async with proxy:
                pass

    async def test_failures(self):
        for kind, command, timeout in (
                (kp.InvalidError, [], None), (kp.SpawnError, ["/no/such/program"], None),
                (kp.ExitedError, fixture("exit", 7), 100), (kp.TimedOutError, fixture("never"), 0.15)):
            with self.subTest(command=command), self.assertRaises(kind):
                async with kp.spawn_async(command, startup_timeout=timeout):
                    self.fail("it is not ready")

    async def test_many_at_once(self):
        proxies = await asyncio.gather(*(kp.spawn_async(fixture("late", 5 * i)) for i in range(20)))
        self.assertEqual(len({proxy.port for proxy in proxies}), 20)
        self.assertTrue(all(proxy.alive for proxy in proxies))
        await self.bounded(asyncio.gather(*(proxy.close() for proxy in proxies)))
        self.assert_gone(*(proxy.pid for proxy in proxies))


class Loop(AsyncTestCase):
    """It takes nothing from the loop but one descriptor to watch."""

    async def test_no_timer_and_no_thread(self):
        loop = asyncio.get_running_loop()
        threads = threading.active_count()
        with mock.patch.object(loop, "call_at", side_effect=AssertionError("a timer")), \
                mock.patch.object(loop, "run_in_executor", side_effect=AssertionError("a thread")):
            async with kp.spawn_async(fixture("late", 50)) as proxy:
                os.kill(proxy.pid, signal.SIGKILL)
                await proxy.wait()
                await proxy.restart()
                self.assertEqual(threading.active_count(), threads)

    @contextlib.asynccontextmanager
    async def ticking(self):
        """Counts how often the loop comes round meanwhile."""
        ticks = []

        async def tick():
            while True:
                ticks.append(await asyncio.sleep(0.01))

        task = asyncio.ensure_future(tick())
        yield ticks
        task.cancel()

    async def test_runs_on_during_start_and_stop(self):
        async with self.ticking() as ticks:
            proxy = await kp.spawn_async(fixture("late", 300))
        self.assertGreater(len(ticks), 5)
        async with self.ticking() as ticks:
            os.kill(proxy.pid, signal.SIGSTOP)  # SIGCONT follows SIGTERM
            await proxy.close()
        deaf = await kp.spawn_async(fixture("deaf"), stop_grace=0.3)
        async with self.ticking() as ticks:
            await deaf.close()
        self.assertGreater(len(ticks), 5)

    async def test_is_idle_while_the_proxy_serves_and_after(self):
        async with kp.spawn_async(fixture("serve")) as proxy:
            for _ in range(2):
                used = time.process_time()
                await asyncio.sleep(0.5)
                self.assertLess(time.process_time() - used, 0.25)
                await proxy.stop()

    async def test_without_a_descriptor(self):
        with mock.patch.object(_ffi.lib, "kp_handle_fd", lambda handle: -1):
            with self.assertRaisesRegex(kp.Error, "no descriptor"):
                # Its end is then blocked for: there is nothing that the loop could watch.
                await self.bounded(kp.spawn_async(fixture("serve")))


class Exit(AsyncTestCase):
    async def test_is_waited_for(self):
        async with kp.spawn_async(fixture("die-after", 1000)) as proxy:
            statuses = await self.bounded(asyncio.gather(proxy.wait(), proxy.wait()))
            self.assertEqual(statuses, [kp.ExitStatus(3, None)] * 2)
            self.assertEqual(await proxy.wait(), kp.ExitStatus(3, None))
        self.assertEqual(await proxy.wait(), kp.ExitStatus(3, None))

    async def test_is_noticed_with_nobody_waiting(self):
        async with kp.spawn_async(fixture("serve")) as proxy:
            os.kill(proxy.pid, signal.SIGKILL)
            await self.until(lambda: not support.stat_fields(proxy.pid), "the loop reaps it")
            self.assertEqual(proxy._exit_status, kp.ExitStatus(None, signal.SIGKILL))

    async def test_that_is_looked_at_wakes_who_waits(self):
        """A look does what is due, and must not do it behind the others' backs."""
        async with kp.spawn_async(fixture("serve")) as proxy:
            waiting = asyncio.ensure_future(proxy.wait())
            await asyncio.sleep(0)
            os.kill(proxy.pid, signal.SIGKILL)
            support.wait_until(lambda: proxy.state is kp.State.EXITED, "it is seen, with the loop blocked")
            self.assertEqual(await self.bounded(waiting), kp.ExitStatus(None, signal.SIGKILL))

    async def test_that_is_waited_for_is_not_missed_in_a_restart(self):
        async with kp.spawn_async(fixture("serve")) as proxy:
            waiting = [asyncio.ensure_future(proxy.wait()) for _ in range(3)]
            await asyncio.sleep(0)
            await self.bounded(proxy.restart())
            self.assertEqual(await self.bounded(asyncio.gather(*waiting)),
                             [kp.ExitStatus(None, signal.SIGTERM)] * 3)

    async def test_wait_may_be_given_up(self):
        async with kp.spawn_async(fixture("serve")) as proxy:
            for _ in range(2):
                with self.assertRaises(asyncio.TimeoutError):
                    await asyncio.wait_for(proxy.wait(), 0.05)
            self.assertTrue(proxy.alive)
            self.assertFalse(proxy._waiters, "what is given up is forgotten")


class Stop(AsyncTestCase):
    async def test_with_grace_and_without(self):
        for options, grace in ({}, 0.1), ({"stop_grace": 0.1}, None), ({"stop_grace": 60}, 0):
            async with kp.spawn_async(fixture("deaf"), **options) as proxy:
                await self.bounded(proxy.stop(grace))
                self.assertEqual(proxy.exit_status, kp.ExitStatus(None, signal.SIGKILL))
                await proxy.stop()

    async def test_second_one_brings_the_end_nearer(self):
        async with kp.spawn_async(fixture("deaf"), stop_grace=60) as proxy:
            first = asyncio.ensure_future(proxy.stop())
            await asyncio.sleep(0.1)
            self.assertIs(proxy.state, kp.State.STOPPING)
            self.assertTrue(proxy.alive)
            await self.bounded(proxy.stop(0))
            await self.bounded(first)

    async def test_close_from_two_tasks(self):
        proxy = await kp.spawn_async(fixture("slow-stop", 100))
        await self.bounded(asyncio.gather(proxy.close(), proxy.close(), proxy.wait()))
        self.assertFalse(proxy.alive)

    async def test_ends_a_start(self):
        unstarted = kp.spawn_async(fixture("never"), startup_timeout=100)
        starting = asyncio.ensure_future(unstarted.__aenter__())
        await asyncio.sleep(0.05)
        await self.bounded(unstarted.stop())
        with self.assertRaises(kp.StateError):
            await self.bounded(starting)


class Restart(AsyncTestCase):
    async def test_keeps_the_port(self):
        async with kp.spawn_async(fixture("serve")) as proxy:
            before = proxy.port, proxy.pid
            for stop in True, False:
                if stop:
                    await proxy.stop()
                await self.bounded(proxy.restart())
                self.assertEqual((proxy.port, proxy.alive, proxy.exit_status), (before[0], True, None))
                self.assertNotEqual(proxy.pid, before[1])
                self.assertTrue(support.listens(proxy.port))
            os.kill(proxy.pid, signal.SIGKILL)
            await self.bounded(proxy.wait())

    async def test_may_fail_and_be_repeated(self):
        flag = self.path("flag")
        script = 'test -e "$1" && exit 9; exec "$0" serve'
        async with kp.spawn_async(["sh", "-c", script, FIXTURE, flag]) as proxy:
            open(flag, "wb").close()
            for _ in range(2):
                with self.assertRaises(kp.ExitedError):
                    await self.bounded(proxy.restart())
                self.assertIs(proxy.state, kp.State.EXITED)
            os.remove(flag)
            await self.bounded(proxy.restart())
            self.assertTrue(proxy.alive)

    async def test_forgets_the_failure_of_the_last_one(self):
        mode = self.path("mode")

        def becomes(text):
            with open(mode, "w", encoding="ascii") as file:
                file.write(text)

        script = '"$0" $(cat "$1")'
        becomes("serve")
        async with kp.spawn_async(["sh", "-c", script, FIXTURE, mode], startup_timeout=60) as proxy:
            becomes("exit 9")
            with self.assertRaises(kp.ExitedError):
                await self.bounded(proxy.restart())
            becomes("never")
            restarting = asyncio.ensure_future(proxy.restart())
            await self.until(lambda: proxy.state is kp.State.STARTING, "it starts")
            await self.bounded(proxy.stop())
            with self.assertRaises(kp.StateError):
                await self.bounded(restarting)

    async def test_cancelled_stops_the_proxy(self):
        marker = self.path("marker")
        script = 'test -e "$1" && exec "$0" never; : >"$1"; exec "$0" serve'
        async with kp.spawn_async(["sh", "-c", script, FIXTURE, marker], startup_timeout=60) as proxy:
            restarting = asyncio.ensure_future(proxy.restart())
            await self.until(lambda: proxy.state is kp.State.STARTING, "it starts")
            restarting.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await self.bounded(restarting)
            self.assertIs(proxy.state, kp.State.EXITED)
            self.assertEqual(await proxy.wait(), kp.ExitStatus(None, signal.SIGTERM))


class Cancellation(AsyncTestCase):
    async def cancelled_when(self, condition, awaitable):
        task = asyncio.ensure_future(awaitable)
        await self.until(condition, "it has started")
        task.cancel()
        return task

    def started(self):
        return any(FIXTURE in support.arguments(child) for child in support.children(os.getpid()))

    async def test_during_the_start_leaves_nothing(self):
        task = await self.cancelled_when(self.started, kp.spawn_async(fixture("never"), startup_timeout=100))
        with self.assertRaises(asyncio.CancelledError):
            await self.bounded(task)
        self.assertEqual(support.children(os.getpid()) - self.before[1], set())

    async def test_in_the_body_stops_the_proxy(self):
        async def body():
            async with kp.spawn_async(fixture("serve")):
                await asyncio.sleep(100)

        task = await self.cancelled_when(self.started, body())
        with self.assertRaises(asyncio.CancelledError):
            await self.bounded(task)

    async def test_twice_ends_the_grace(self):
        """And does not block the loop while the proxy is killed."""
        proxy = await kp.spawn_async(fixture("deaf"), stop_grace=100)
        task = await self.cancelled_when(lambda: proxy.state is kp.State.STOPPING, proxy.close())
        with self.assertRaises(asyncio.CancelledError):
            await self.bounded(task)
        self.assertEqual(proxy.exit_status, kp.ExitStatus(None, signal.SIGKILL))
        self.assertEqual(repr(proxy), f"<AsyncProxy {proxy.url} pid={proxy.pid} closed>")


class Ends(support.TestCase):
    def test_loop_that_ends_before_the_proxy(self):
        async def leave():
            return await kp.spawn_async(fixture("serve"))

        proxy = asyncio.run(leave())
        self.assertTrue(proxy.alive)
        os.kill(proxy.pid, signal.SIGKILL)
        support.wait_until(lambda: proxy.state is kp.State.EXITED, "the exit is seen")
        asyncio.run(proxy.close())

    def test_proxy_of_a_loop_that_has_ended(self):
        async def leave():
            return await kp.spawn_async(fixture("serve"))

        proxy = asyncio.run(leave())
        with self.assertRaisesRegex(RuntimeError, "loop"):
            asyncio.run(proxy.close())
        self.assertFalse(support.exists(proxy.pid), "it is stopped all the same")

    def test_proxy_on_one_loop_after_the_other(self):
        async def whole_life():
            async with kp.spawn_async(fixture("serve")) as proxy:
                return proxy.alive

        self.assertEqual([asyncio.run(whole_life()) for _ in range(2)], [True, True])


if __name__ == "__main__":
    unittest.main()
