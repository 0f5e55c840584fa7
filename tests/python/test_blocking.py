# SPDX-License-Identifier: Apache-2.0
"""A proxy's life for hosts that block."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest
from unittest import mock

import kp
import support
from kp import _ffi, _proxy
from support import fixture


class Start(support.TestCase):
    def test_is_ready(self):
        with kp.spawn(fixture("serve")) as proxy:
            self.assertIs(proxy.state, kp.State.READY)
            self.assertTrue(proxy.alive)
            self.assertIsNone(proxy.exit_status)
            self.assertEqual(proxy.url, f"http://127.0.0.1:{proxy.port}")
            self.assertEqual(support.arguments(proxy.pid), fixture("serve"))
            self.assertEqual(support.tunnel(proxy), (b"200", b"there and back"))
        self.assert_gone(proxy.pid)
        self.assertFalse(support.listens(proxy.port))

    def test_waits_for_it(self):
        with kp.spawn(fixture("late", 300)) as proxy:
            self.assertTrue(support.listens(proxy.port))

    def test_ends_when_the_body_raises(self):
        with self.assertRaises(ZeroDivisionError):
            with kp.spawn(fixture("serve")) as proxy:
                1 / 0
        self.assert_gone(proxy.pid)

    def test_leaves_nothing_when_it_fails(self):
        """What the common teardown says, of a start that fails late."""
        with self.assertRaises(kp.TimedOutError):
            kp.spawn(["sh", "-c", 'sleep 60 & exec "$0" never', support.FIXTURE], startup_timeout=0.2)

    def test_repr(self):
        with kp.spawn(fixture("serve")) as proxy:
            self.assertEqual(repr(proxy), f"<Proxy {proxy.url} pid={proxy.pid} ready>")
        self.assertEqual(repr(proxy), f"<Proxy {proxy.url} pid={proxy.pid} closed>")


class Exit(support.TestCase):
    def test_is_seen_by_who_looks(self):
        with kp.spawn(fixture("die-after", 1000)) as proxy:
            support.wait_until(lambda: not proxy.alive, "the proxy exits")
            self.assertEqual(proxy.exit_status, kp.ExitStatus(3, None))

    def test_each_look_is_afresh(self):
        looks = {"alive": lambda proxy: not proxy.alive, "exit_status": lambda proxy: proxy.exit_status,
                 "state": lambda proxy: proxy.state is kp.State.EXITED}
        for name, look in looks.items():
            with self.subTest(look=name), kp.spawn(fixture("serve")) as proxy:
                os.kill(proxy.pid, signal.SIGKILL)
                support.wait_until(lambda: look(proxy), "the exit is seen")

    def test_is_waited_for(self):
        with kp.spawn(fixture("die-after", 1000)) as proxy:
            self.assertEqual(proxy.wait(), kp.ExitStatus(code=3, signal=None))
            self.assertIs(proxy.state, kp.State.EXITED)
            self.assertEqual(proxy.wait(0), kp.ExitStatus(3, None))

    def test_by_a_signal(self):
        with kp.spawn(fixture("serve")) as proxy:
            os.kill(proxy.pid, signal.SIGKILL)
            self.assertEqual(proxy.wait(), kp.ExitStatus(None, signal.SIGKILL))

    def test_is_not_waited_for_longer_than_asked(self):
        with kp.spawn(fixture("serve")) as proxy:
            for timeout in 0, 0.1:
                with self.assertRaises(TimeoutError):
                    proxy.wait(timeout)
            self.assertTrue(proxy.alive)

    def test_is_remembered_once_closed(self):
        with kp.spawn(fixture("serve")) as proxy:
            os.kill(proxy.pid, signal.SIGKILL)
            proxy.wait()
        self.assertEqual((proxy.wait(), proxy.exit_status), (kp.ExitStatus(None, signal.SIGKILL),) * 2)
        self.assertEqual((proxy.state, proxy.alive), (kp.State.EXITED, False))
        self.assertGreater(proxy.pid, 0)


class Stop(support.TestCase):
    def test_ends_the_proxy(self):
        with kp.spawn(fixture("serve")) as proxy:
            proxy.stop()
            self.assertFalse(proxy.alive)
            self.assertEqual(proxy.exit_status, kp.ExitStatus(None, signal.SIGTERM))
            self.assertFalse(support.exists(proxy.pid))
            proxy.stop()

    def test_deaf_proxy_is_killed_after_the_grace(self):
        for options, grace in ({}, 0.1), ({"stop_grace": 0.1}, None):
            with kp.spawn(fixture("deaf"), **options) as proxy:
                start = time.monotonic()
                proxy.stop(grace)
                self.assertGreaterEqual(time.monotonic() - start, 0.1)
                self.assertEqual(proxy.exit_status, kp.ExitStatus(None, signal.SIGKILL))

    def test_without_grace(self):
        with kp.spawn(fixture("slow-stop", 60_000), stop_grace=60) as proxy:
            proxy.stop(0)
            self.assertEqual(proxy.exit_status, kp.ExitStatus(None, signal.SIGKILL))

    def test_of_a_closed_proxy(self):
        with kp.spawn(fixture("serve")) as proxy:
            proxy.close()
            proxy.close()
            proxy.stop()
            self.assertEqual(repr(proxy), f"<Proxy {proxy.url} pid={proxy.pid} closed>")

    def test_wrong_grace(self):
        with kp.spawn(fixture("serve")) as proxy:
            with self.assertRaises(kp.InvalidError):
                proxy.stop(-1)
            self.assertTrue(proxy.alive)


class Restart(support.TestCase):
    def check_restarted(self, proxy, before):
        self.assertTrue(proxy.alive)
        self.assertIsNone(proxy.exit_status)
        self.assertEqual((proxy.port, proxy.url), before[:2])
        self.assertNotEqual(proxy.pid, before[2])
        self.assertEqual(support.tunnel(proxy), (b"200", b"there and back"))

    def test_after_an_exit(self):
        with kp.spawn(fixture("serve")) as proxy:
            before = proxy.port, proxy.url, proxy.pid
            os.kill(proxy.pid, signal.SIGKILL)
            proxy.wait()
            proxy.restart()
            self.check_restarted(proxy, before)

    def test_after_a_stop(self):
        with kp.spawn(fixture("serve")) as proxy:
            before = proxy.port, proxy.url, proxy.pid
            proxy.stop()
            proxy.restart()
            self.check_restarted(proxy, before)

    def test_of_a_living_proxy(self):
        with kp.spawn(fixture("serve")) as proxy:
            before = proxy.port, proxy.url, proxy.pid
            proxy.restart()
            self.assertFalse(support.exists(before[2]))
            self.check_restarted(proxy, before)

    def test_may_fail_and_be_repeated(self):
        flag = self.path("flag")
        script = 'test -e "$1" && exit 9; exec "$0" serve'
        with kp.spawn(["sh", "-c", script, support.FIXTURE, flag]) as proxy:
            open(flag, "wb").close()
            for _ in range(2):
                with self.assertRaises(kp.ExitedError) as caught:
                    proxy.restart()
                self.assertEqual(caught.exception.exit_code, 9)
                self.assertIs(proxy.state, kp.State.EXITED)
            os.remove(flag)
            proxy.restart()
            self.assertTrue(proxy.alive)

    def test_of_a_closed_proxy(self):
        with kp.spawn(fixture("serve")) as proxy:
            pass
        with self.assertRaises(kp.StateError):
            proxy.restart()


class Pauses(support.TestCase):
    """Between steps the host sleeps, and other threads go on."""

    def test_is_not_busy(self):
        with kp.spawn(fixture("serve")) as proxy:
            used = time.process_time()
            with self.assertRaises(TimeoutError):
                proxy.wait(0.5)
            self.assertLess(time.process_time() - used, 0.25)

    def test_without_a_descriptor(self):
        """As in a host that has none left."""
        with mock.patch.object(_ffi.lib, "kp_handle_fd", lambda handle: -1):
            with kp.spawn(fixture("late", 100)) as proxy:
                with self.assertRaises(TimeoutError):
                    proxy.wait(0.1)
                os.kill(proxy.pid, signal.SIGKILL)
                self.assertEqual(proxy.wait(), kp.ExitStatus(None, signal.SIGKILL))
                proxy.restart()

    def test_end_when_another_thread_stops_the_proxy(self):
        for end in "stop", "close":
            with self.subTest(end=end), kp.spawn(fixture("serve")) as proxy, \
                    mock.patch.object(_proxy, "_LONGEST_PAUSE", 0.1):
                seen = []
                thread = threading.Thread(target=lambda: seen.append(proxy.wait()))
                thread.start()
                time.sleep(0.1)
                getattr(proxy, end)()
                thread.join(support.PATIENCE)
                self.assertEqual(seen, [kp.ExitStatus(None, signal.SIGTERM)])


class Many(support.TestCase):
    def test_at_once(self):
        proxies = [kp.spawn(fixture("serve")) for _ in range(10)]
        self.assertEqual(len({proxy.port for proxy in proxies}), 10)
        for proxy in proxies:
            proxy.close()
        self.assert_gone(*(proxy.pid for proxy in proxies))

    def test_a_child_gets_through(self):
        """A child that knows nothing but its environment."""
        script = """
import os, socket, urllib.parse
proxy = urllib.parse.urlsplit(os.environ["https_proxy"])
with socket.create_connection((proxy.hostname, proxy.port), 20) as client:
    client.sendall(b"CONNECT %s HTTP/1.1\\r\\n\\r\\n" % os.environb[b"TARGET"])
    assert client.recv(4096).startswith(b"HTTP/1."), "no proxy"
"""
        with socket.create_server(("127.0.0.1", 0)) as origin, kp.spawn(fixture("serve")) as proxy:
            target = "127.0.0.1:%d" % origin.getsockname()[1]
            env = {**proxy.env(), "TARGET": target}
            subprocess.run([sys.executable, "-c", script], env=env, check=True, timeout=60)


if __name__ == "__main__":
    unittest.main()
