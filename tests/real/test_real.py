#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A real proxy, started through the library, and a real curl through it.

    test_real.py DRIVER ORIGIN PROXY [OPTION OF UNITTEST]...

DRIVER is the host program, ORIGIN the loopback web server, PROXY a name in proxies.py.
The origin has a made-up name that the proxy alone can resolve, so an answer of the origin
proves that curl went through the proxy. Exits with 77, which is "skipped" for Meson, where
a program is missing; with KP_TEST_REQUIRE=1 that is a failure.
"""

import glob
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

import processes
import proxies
import tunnel
from host import GONE_WITHIN_S, NAME, Host, Stage

DRIVER = ORIGIN = ""  # the command line sets these
CURL_UNKNOWN_CA = 60
LIFETIME_S = 170
# Few of the proxies need longer for a stop, and those that do need SIGKILL in any case.
GRACE_MS = 1000
KILLED_WITHIN_MS = 5000  # 1000, on a machine that is not busy


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class RealProxy(unittest.TestCase):
    proxy: proxies.Proxy

    @classmethod
    def setUpClass(cls):
        cache = tempfile.TemporaryDirectory(prefix="kp-real-cache-")
        cls.addClassCleanup(cache.cleanup)
        cls.cache = cache.name

    def setUp(self):
        self.stage = Stage(self.proxy, self.cache)
        self.addCleanup(self.stage.close)

    def start_proxy(self):
        host = Host(self.stage, DRIVER, GRACE_MS)
        self.addCleanup(host.close)
        return host

    def start_origin(self, *args):
        return self.stage.run_server(ORIGIN, *args)

    def open_tunnel(self, host):
        origin = tunnel.Origin()
        self.addCleanup(origin.close)
        connection = tunnel.open_tunnel(self.proxy, host.port, NAME, origin.port)
        self.addCleanup(connection.close)
        return connection

    def curl(self, url, env, *options):
        return subprocess.run(
            ["curl", "-q", "-sS", "--fail", "--max-time", "20", *options, url],
            env=env,
            text=True,
            capture_output=True,
            check=False,
        )

    def curl_through(self, host, url, env):
        if self.proxy.speaks == "socks":
            return self.curl(url, env, "--socks5-hostname", f"127.0.0.1:{host.port}")
        return self.curl(url, env)

    def check_answer(self, host, url, text):
        answer = self.curl_through(host, url, host.env)
        self.assertEqual(answer.returncode, 0, answer.stderr)
        self.assertEqual(answer.stdout, f"{text}\n")

    def check_log(self, port):
        """The proxy itself, or the one that it hands on to, was asked for the origin."""
        logs = glob.glob(f"{self.stage.folder}/*.log")
        text = "".join(self.stage.read(os.path.basename(path)) for path in logs)
        if self.proxy.logs_names:
            self.assertRegex(text, f"{NAME}(:| port ){port}")

    def check_listener(self, host):
        """Whoever holds it came from the driver."""
        holders = processes.owners(host.port, processes.every_process())
        self.assertNotEqual(holders, [])
        self.assertLessEqual(set(holders), set(host.left()))

    def wait_gone(self, host):
        deadline = time.monotonic() + GONE_WITHIN_S
        while host.left() and time.monotonic() < deadline:
            time.sleep(0.02)

    def check_gone(self, host):
        self.assertEqual(host.left(), [])
        self.assertFalse(listens(host.port), "something listens on the port")

    def check_stop(self, host):
        """Within the grace and a little; nothing is left of it while the driver lives on."""
        self.assertIn(host.pid, host.left())
        stopped = host.stop()
        print(f"stopped: {stopped}", file=sys.stderr)
        self.assertLess(stopped.microseconds, (GRACE_MS + KILLED_WITHIN_MS) * 1000)
        if self.proxy.leaves_group:
            self.wait_gone(host)
        self.check_gone(host)

    def check_end(self, host):
        self.check_stop(host)
        self.assertEqual(host.finish(), 0)

    def test_http(self):
        text = secrets.token_hex()
        port = self.start_origin(text)
        url = f"http://{NAME}:{port}/"
        host = self.start_proxy()
        self.check_answer(host, url, text)
        self.check_listener(host)
        without_proxy = self.curl(url, {"PATH": host.env["PATH"]})
        self.assertNotEqual(without_proxy.returncode, 0, "curl reached the origin by itself")
        self.check_end(host)
        self.check_log(port)

    def test_https(self):
        text = secrets.token_hex()
        port = self.start_origin(text, self.stage.path("origin-and-key.pem"))
        url = f"https://{NAME}:{port}/"
        host = self.start_proxy()
        self.check_answer(host, url, text)
        ca_names = ("SSL_CERT_FILE", "CURL_CA_BUNDLE")
        without_ca = {name: value for name, value in host.env.items() if name not in ca_names}
        self.assertEqual(self.curl_through(host, url, without_ca).returncode, CURL_UNKNOWN_CA)
        self.check_end(host)
        self.check_log(port)

    def test_restart(self):
        """On the same port: children that run already go on working."""
        text = secrets.token_hex()
        url = f"http://{NAME}:{self.start_origin(text)}/"
        host = self.start_proxy()
        port, pid, env = host.port, host.pid, host.env
        # What is left of its connections keeps one that binds without SO_REUSEADDR away.
        if self.proxy.reserve:
            self.check_answer(host, url, text)
        self.check_stop(host)
        host.restart()
        self.assertEqual((host.port, host.env), (port, env))
        self.assertNotEqual(host.pid, pid)
        self.check_answer(host, url, text)
        self.check_end(host)

    def test_stop_with_tunnel(self):
        host = self.start_proxy()
        connection = self.open_tunnel(host)
        self.assertTrue(tunnel.is_open(connection))
        self.check_stop(host)
        self.assertFalse(tunnel.is_open(connection))
        self.assertEqual(host.finish(), 0)

    def test_host_killed_with_tunnel(self):
        if self.proxy.leaves_group:
            self.skipTest("the guard does not reach who left the group, as kp(7) says")
        host = self.start_proxy()
        connection = self.open_tunnel(host)
        host.process.kill()
        self.wait_gone(host)
        self.check_gone(host)
        self.assertFalse(tunnel.is_open(connection))


def main():
    global DRIVER, ORIGIN
    DRIVER, ORIGIN, name, *options = sys.argv[1:]
    signal.alarm(LIFETIME_S)  # the driver sees its input end, and stops the proxy
    RealProxy.proxy = proxies.PROXIES[name]
    missing = RealProxy.proxy.missing()
    if missing:
        print(f"{name}: skipped, missing: {', '.join(missing)}")
        sys.exit(1 if os.environ.get("KP_TEST_REQUIRE") == "1" else 77)
    processes.adopt_orphans()
    unittest.main(argv=[sys.argv[0], "--verbose", *options])


if __name__ == "__main__":
    main()
