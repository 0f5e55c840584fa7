# SPDX-License-Identifier: Apache-2.0
"""Proxies that run already: the fixture, run by a proxy of its own."""

import asyncio
import contextlib
import http.server
import os
import socket
import sys
import threading
import unittest

import kp
import support
from kp import _spec
from support import fixture

NOBODY = 65534  # the user


class PythonsOwnServer(http.server.ThreadingHTTPServer):
    """Keeps what it would print a traceback of."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), QuietHandler)
        self.errors = []

    def handle_error(self, request, client_address):
        self.errors.append(repr(sys.exc_info()[1]))


class QuietHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_CONNECT(self):
        self.send_response(502)
        self.send_header("Content-Length", "10000")
        self.end_headers()
        for _ in range(100):
            self.wfile.write(100 * b"x")

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(server):
    thread = threading.Thread(target=server.serve_forever, args=[0.01])
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join(support.PATIENCE)
        server.server_close()  # once each client has been served


class Question(support.TestCase):
    def test_leaves_no_error_in_the_proxy(self):
        server = PythonsOwnServer()
        with serving(server) as port:
            for _ in range(20):
                with kp.attach(port, probe_http=True):
                    pass
        self.assertEqual(server.errors, [])


class Attach(support.TestCase):
    def setUp(self):
        super().setUp()
        self.running = kp.spawn(fixture("serve"))
        self.addCleanup(self.running.close)

    def check_left_alone(self):
        self.assertTrue(self.running.alive)
        self.assertEqual(support.tunnel(self.running), (b"200", b"there and back"))

    def test_is_ready(self):
        with kp.attach(self.running.port) as proxy:
            self.assertEqual((proxy.state, proxy.alive), (kp.State.READY, True))
            self.assertEqual((proxy.port, proxy.url), (self.running.port, self.running.url))
            self.assertEqual((proxy.pid, proxy.exit_status), (None, None))
            self.assertEqual(support.tunnel(proxy), (b"200", b"there and back"))
        self.assertEqual((proxy.state, proxy.alive), (kp.State.EXITED, False))
        self.check_left_alone()

    def test_bouquet_is_that_of_a_started_one(self):
        options = {"no_proxy": "", "ca_bundle": "/ca.pem"}
        with kp.spawn(fixture("serve"), **options) as started, kp.attach(started.port, **options) as proxy:
            self.assertEqual(proxy.env(), started.env())
            self.assertEqual((proxy.env()["NO_PROXY"], proxy.env()["SSL_CERT_FILE"]), ("", "/ca.pem"))

    def test_stop_leaves_it_running(self):
        with kp.attach(self.running.port) as proxy:
            proxy.stop()
            self.assertEqual((proxy.state, proxy.alive), (kp.State.EXITED, False))
            self.assertEqual((proxy.wait(0), proxy.exit_status), (kp.ExitStatus(None, None), None))
            self.check_left_alone()
            proxy.restart()
            self.assertTrue(proxy.alive)
            proxy.stop(0)
            self.check_left_alone()

    def test_restart_looks_again(self):
        with kp.attach(self.running.port, startup_timeout=0.15) as proxy:
            self.running.stop()
            with self.assertRaises(kp.TimedOutError):
                proxy.restart()
            self.assertIs(proxy.state, kp.State.EXITED)
            self.running.restart()
            proxy.restart()
            self.assertEqual(support.tunnel(proxy), (b"200", b"there and back"))

    def test_wait_is_for_a_stop(self):
        with kp.attach(self.running.port) as proxy:
            self.running.stop()
            with self.assertRaises(TimeoutError):
                proxy.wait(0.1)

    def test_nobody_closes_it(self):
        proxy = kp.attach(self.running.port)
        with self.assertWarnsRegex(ResourceWarning, f"port {proxy.port} was never closed"):
            del proxy
        self.check_left_alone()

    def test_repr(self):
        with kp.attach(self.running.port) as proxy:
            self.assertEqual(repr(proxy), f"<Proxy {proxy.url} pid=None ready>")


class Refused(support.TestCase):
    def test_nobody_listens(self):
        with support.unserved_port() as port, self.assertRaises(kp.TimedOutError) as caught:
            kp.attach(port, startup_timeout=0.15)
        self.assertIn(str(port), caught.exception.message)

    def test_other_protocol(self):
        with kp.spawn(fixture(*support.OTHER_PROTOCOL)) as other:
            with kp.attach(other.port):
                pass
            with self.assertRaises(kp.NotHttpError):
                kp.attach(other.port, probe_http=True)
            self.assertTrue(other.alive)

    @contextlib.contextmanager
    def listener_of_another_user(self):
        os.seteuid(NOBODY)
        try:
            server = socket.socket()
        finally:
            os.seteuid(0)
        with server:
            server.bind(("127.0.0.1", 0))
            server.listen()
            yield server.getsockname()[1]

    @unittest.skipUnless(os.geteuid() == 0, "only root can be another user")
    def test_other_user(self):
        with self.listener_of_another_user() as port:
            with self.assertRaises(kp.ForeignListenerError):
                kp.attach(port)
            with kp.attach(port, any_listener=True) as proxy:
                self.assertTrue(proxy.alive)

    def test_ports(self):
        for port in 0, -1, 65536:
            with self.assertRaises(kp.InvalidError):
                kp.attach(port)
        with self.assertRaises(TypeError):
            kp.attach("8080")

    def test_what_only_a_started_one_has(self):
        """The functions do not take it, and the library refuses it."""
        wrong = {"command": ["true"], "env": {"A": "B"}, "cwd": "/", "log": 2,
                 "clear_env": True, "guard": False, "reserve": False}
        for name, value in wrong.items():
            with self.subTest(name=name), self.assertRaises(kp.InvalidError):
                kp.Proxy(_spec.Spec(attach=True, port=8080, **{name: value}))._start()


class Async(unittest.IsolatedAsyncioTestCase, support.TestCase):
    async def test_life(self):
        async with kp.spawn_async(fixture("serve")) as running:
            async with kp.attach_async(running.port, probe_http=True) as proxy:
                self.assertEqual((proxy.state, proxy.pid), (kp.State.READY, None))
                self.assertEqual(proxy.env(), running.env())
                self.assertEqual(support.tunnel(proxy), (b"200", b"there and back"))
                waiting = asyncio.ensure_future(proxy.wait())
                await asyncio.sleep(0)
                await asyncio.wait_for(proxy.stop(), support.PATIENCE)
                status = await asyncio.wait_for(waiting, support.PATIENCE)
                self.assertEqual((status, proxy.alive), (kp.ExitStatus(None, None), False))
                await asyncio.wait_for(proxy.restart(), support.PATIENCE)
                self.assertTrue(proxy.alive)
            self.assertTrue(running.alive)
            self.assertEqual(support.tunnel(running), (b"200", b"there and back"))

    async def test_awaited(self):
        async with kp.spawn_async(fixture("serve")) as running:
            proxy = await kp.attach_async(running.port)
            self.assertTrue(proxy.alive)
            await proxy.close()
            self.assertTrue(running.alive)

    async def test_failures(self):
        with support.unserved_port() as unserved, kp.spawn(fixture(*support.OTHER_PROTOCOL)) as other:
            for kind, port in (kp.TimedOutError, unserved), (kp.NotHttpError, other.port), (kp.InvalidError, 0):
                with self.subTest(kind=kind.__name__), self.assertRaises(kind):
                    async with kp.attach_async(port, startup_timeout=0.5, probe_http=True):
                        self.fail("it is not ready")

    async def test_cancelled(self):
        with support.unserved_port() as port:
            starting = asyncio.ensure_future(kp.attach_async(port, startup_timeout=100).__aenter__())
            await asyncio.sleep(0.05)
            starting.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await asyncio.wait_for(starting, support.PATIENCE)


if __name__ == "__main__":
    unittest.main()
