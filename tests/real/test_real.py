#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A real proxy, started through the library, and a real curl through it.

    test_real.py DRIVER ORIGIN PROXY [OPTION OF UNITTEST]...

DRIVER is the host program, ORIGIN the loopback web server, PROXY a name in the table
below. The origin has a made-up name that the proxy alone can resolve, so an answer of
the origin proves that curl went through the proxy. Exits with 77, which is "skipped" for
Meson, where a program is missing; with KP_TEST_REQUIRE=1 that is a failure.
"""

import dataclasses
import glob
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

DRIVER = ORIGIN = ""  # the command line sets these
NAME = "origin.kp.test"
SYSTEM_ROOTS = "/etc/ssl/certs/ca-certificates.crt"
NSS_WRAPPER = "libnss_wrapper.so"
CURL_UNKNOWN_CA = 60
LIFETIME_S = 110
GONE_WITHIN_S = 30


@dataclasses.dataclass(frozen=True)
class Proxy:
    program: str
    # For /bin/sh, in the proxy's folder, where it finds the files `config` and `hosts`.
    # The port is in $KODA_PROXY_PORT.
    command: str
    config: str = ""
    # Resolve by the file `hosts` for a program that has no option for this.
    wrap_resolver: bool = False
    # The file in which a proxy that intercepts TLS keeps its own CA.
    own_ca: str = ""


SQUID_CONFIG = """
hosts_file {folder}/hosts
access_log stdio:{folder}/access.log
cache_log {folder}/cache.log
coredump_dir {folder}
pid_filename none
visible_hostname localhost
pinger_enable off
cache deny all
shutdown_lifetime 0 seconds
http_access allow localhost
http_access deny all
"""

SQUID_PORT = 'echo "http_port 127.0.0.1:$KODA_PROXY_PORT" >>config'
# The service's name makes its shared memory its own: another squid may run.
SQUID = 'squid -n "kp$KODA_PROXY_PORT" -f config'

PROXIES = {
    "tinyproxy": Proxy(
        program="tinyproxy",
        config="Listen 127.0.0.1\nAllow 127.0.0.1\nLogLevel Connect\n",
        command='echo "Port $KODA_PROXY_PORT" >>config && exec tinyproxy -d -c config',
        wrap_resolver=True,
    ),
    "squid": Proxy(
        program="squid",
        config=SQUID_CONFIG,
        command=f"{SQUID_PORT} && exec {SQUID} -N",
    ),
    "squid-with-worker": Proxy(
        program="squid",
        config=SQUID_CONFIG,
        command=f"{SQUID_PORT} && {SQUID} --foreground",
    ),
    "mitmdump": Proxy(
        program="mitmdump",
        command='mitmdump --listen-host 127.0.0.1 --listen-port "$KODA_PROXY_PORT"'
        " --set confdir=. --set ssl_verify_upstream_trusted_ca=origin.pem",
        wrap_resolver=True,
        own_ca="mitmproxy-ca-cert.pem",
    ),
}


def missing_programs(proxy):
    missing = [each for each in (proxy.program, "curl", "openssl") if shutil.which(each) is None]
    if proxy.wrap_resolver and not glob.glob(f"/usr/lib*/{NSS_WRAPPER}") + glob.glob(
        f"/usr/lib/*/{NSS_WRAPPER}"
    ):
        missing.append(NSS_WRAPPER)
    return missing


def process_group(pid):
    """The group of a process that has not ended; None: it has."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            state, _ppid, group = file.read().rpartition(")")[2].split()[:3]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else int(group)


def members(group):
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if process_group(pid) == group]


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Host:
    """The driver and, through it, the proxy."""

    def __init__(self, test, proxy, folder, bundle):
        # What the user's shell might hold: all of it would lead around the proxy.
        hostile = {"NO_PROXY": "*", "no_proxy": ".test", "ALL_PROXY": "socks5://127.0.0.1:1"}
        wrap = [f"LD_PRELOAD={NSS_WRAPPER}", f"NSS_WRAPPER_HOSTS={folder}/hosts"]
        args = [DRIVER, folder, bundle, proxy.command] + (wrap if proxy.wrap_resolver else [])
        self.process = subprocess.Popen(
            args,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PATH": os.environ["PATH"], "HOME": folder, **hostile},
        )
        test.addCleanup(self.close)
        self.group = 0
        word, _, rest = self.process.stdout.readline().partition(" ")
        test.assertEqual(word, "ready", "the proxy did not start")
        self.port, self.pid = map(int, rest.split())
        self.group = os.getpgid(self.pid)
        self.env = dict(self.read_environment())

    def read_environment(self):
        for line in iter(self.process.stdout.readline, "\n"):
            yield line.rstrip("\n").partition(" ")[2].split("=", 1)

    def stop(self):
        """Has the proxy stopped; returns what the driver says about it."""
        output, _ = self.process.communicate(timeout=GONE_WITHIN_S)
        return output

    def close(self):
        """After a failure too, nothing is left."""
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        for pid in members(self.group) if self.group else []:
            os.kill(pid, signal.SIGKILL)


class RealProxy(unittest.TestCase):
    proxy: Proxy

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="kp-real-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        os.chmod(self.folder, 0o777)  # a squid that root starts becomes another user
        self.write("hosts", f"127.0.0.1 {NAME}\n")
        self.write("config", self.proxy.config.format(folder=self.folder))
        self.make_certificate()
        self.bundle = os.path.join(self.folder, "bundle.pem")

    def write(self, name, text):
        with open(os.path.join(self.folder, name), "w", encoding="utf-8") as file:
            file.write(text)

    def read(self, name):
        with open(os.path.join(self.folder, name), encoding="utf-8", errors="replace") as file:
            return file.read()

    def make_certificate(self):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
            + ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"]
            + ["-keyout", f"{self.folder}/key.pem", "-out", f"{self.folder}/origin.pem"],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        self.write("origin-and-key.pem", self.read("origin.pem") + self.read("key.pem"))

    def make_bundle(self):
        """The system's roots, and the one CA that curl is to meet."""
        system_roots = self.read(SYSTEM_ROOTS) if os.path.exists(SYSTEM_ROOTS) else ""
        self.write("bundle.pem", system_roots + self.read(self.proxy.own_ca or "origin.pem"))

    def start_proxy(self):
        host = Host(self, self.proxy, self.folder, self.bundle)
        self.make_bundle()  # now the CA of a proxy that makes one exists
        return host

    def start_origin(self, text, *certificate):
        origin = subprocess.Popen(
            [sys.executable, ORIGIN, text, *certificate],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.addCleanup(origin.stdout.close)
        self.addCleanup(origin.wait)
        self.addCleanup(origin.kill)
        return int(origin.stdout.readline())

    def curl(self, url, env):
        return subprocess.run(
            ["curl", "-q", "-sS", "--fail", "--max-time", "20", url],
            env=env,
            text=True,
            capture_output=True,
            check=False,
        )

    def check_answer(self, host, url, text):
        answer = self.curl(url, host.env)
        self.assertEqual(answer.returncode, 0, answer.stderr)
        self.assertEqual(answer.stdout, f"{text}\n")

    def check_log(self, port):
        """The proxy itself says that it was asked for the origin."""
        logs = [self.read(os.path.basename(path)) for path in glob.glob(f"{self.folder}/*.log")]
        self.assertIn(f"{NAME}:{port}", "".join(logs))

    def check_gone(self, host):
        self.assertEqual(members(host.group), [])
        self.assertFalse(listens(host.port), "something listens on the port")

    def test_http(self):
        text = secrets.token_hex()
        port = self.start_origin(text)
        url = f"http://{NAME}:{port}/"
        host = self.start_proxy()
        self.check_answer(host, url, text)
        without_proxy = self.curl(url, {"PATH": host.env["PATH"]})
        self.assertNotEqual(without_proxy.returncode, 0, "curl reached the origin by itself")
        self.check_stop(host)
        self.check_log(port)

    def test_https(self):
        text = secrets.token_hex()
        port = self.start_origin(text, f"{self.folder}/origin-and-key.pem")
        url = f"https://{NAME}:{port}/"
        host = self.start_proxy()
        self.check_answer(host, url, text)
        ca_names = ("SSL_CERT_FILE", "CURL_CA_BUNDLE")
        without_ca = {name: value for name, value in host.env.items() if name not in ca_names}
        self.assertEqual(self.curl(url, without_ca).returncode, CURL_UNKNOWN_CA)
        self.check_stop(host)
        self.check_log(port)

    def check_stop(self, host):
        self.assertIn(host.pid, members(host.group))
        print(f"stopped: {host.stop().strip()}", file=sys.stderr)
        self.assertEqual(host.process.returncode, 0)
        self.check_gone(host)

    def test_host_killed(self):
        host = self.start_proxy()
        host.process.kill()
        deadline = time.monotonic() + GONE_WITHIN_S
        while members(host.group) and time.monotonic() < deadline:
            time.sleep(0.02)
        self.check_gone(host)


def main():
    global DRIVER, ORIGIN
    DRIVER, ORIGIN, name, *options = sys.argv[1:]
    signal.alarm(LIFETIME_S)  # the driver sees its input end, and stops the proxy
    RealProxy.proxy = PROXIES[name]
    missing = missing_programs(RealProxy.proxy)
    if missing:
        print(f"{name}: skipped, missing: {', '.join(missing)}")
        sys.exit(1 if os.environ.get("KP_TEST_REQUIRE") == "1" else 77)
    unittest.main(argv=[sys.argv[0], "--verbose", *options])


if __name__ == "__main__":
    main()
