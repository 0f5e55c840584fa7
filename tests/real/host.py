# SPDX-License-Identifier: Apache-2.0
"""A real proxy with a folder of its own, and the driver that runs it through the library."""

import contextlib
import dataclasses
import glob
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import processes
import proxies

NAME = "origin.kp.test"
SYSTEM_ROOTS = "/etc/ssl/certs/ca-certificates.crt"
SPEC_PROBE_HTTP = 1 << 1
SPEC_NO_RESERVE = 1 << 3
GONE_WITHIN_S = 30

SSHD_CONFIG = """
HostKey {folder}/host-key
AuthorizedKeysFile {folder}/key.pub
PidFile none
UsePAM no
StrictModes no
PermitRootLogin yes
LogLevel DEBUG
"""


def free_port():
    """At random, outside of the range that the kernel hands out meanwhile."""
    while True:
        port = random.randrange(12000, 32000)
        with contextlib.suppress(OSError), socket.socket() as free:
            free.bind(("", port))
            return port


class Stage(contextlib.ExitStack):
    """The folder, and what the proxy hands on to; all of it is gone after close(). The cache
    is a folder that outlives it, for a compiler."""

    def __init__(self, proxy, cache):
        super().__init__()
        self.proxy = proxy
        self.cache = cache
        self.sessions = set()
        self.folder = tempfile.mkdtemp(prefix="kp-real-")
        self.callback(shutil.rmtree, self.folder, ignore_errors=True)
        try:
            self.prepare()
        except BaseException:
            self.close()
            raise

    def prepare(self):
        os.chmod(self.folder, 0o777)  # a squid that root starts becomes another user
        self.write("hosts", f"127.0.0.1 {NAME}\n")
        self.make_certificate()
        start = {"": lambda: 0, "proxy": self.start_parent, "sshd": self.start_sshd}
        upstream_port = start[self.proxy.upstream]()
        self.port = free_port() if self.proxy.fixed_port else 0
        facts = proxies.facts(self.folder, self.port, upstream_port)
        self.write("config", self.proxy.config.format(**facts))
        self.command = self.proxy.command.format(**facts)
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": self.folder,
            "XDG_CACHE_HOME": self.cache,
        }
        build = self.proxy.build.format(**facts)
        subprocess.run(["sh", "-c", build], cwd=self.folder, env=self.environment, check=True)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)

    def read(self, name):
        with open(self.path(name), encoding="utf-8", errors="replace") as file:
            return file.read()

    def make_certificate(self):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
            + ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"]
            + ["-keyout", self.path("key.pem"), "-out", self.path("origin.pem")],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        self.write("origin-and-key.pem", self.read("origin.pem") + self.read("key.pem"))

    def make_bundle(self):
        """The system's roots, and the one CA that curl is to meet."""
        system_roots = self.read(SYSTEM_ROOTS) if os.path.exists(SYSTEM_ROOTS) else ""
        self.write("bundle.pem", system_roots + self.read(self.proxy.own_ca or "origin.pem"))

    def resolver(self):
        return {"LD_PRELOAD": proxies.NSS_WRAPPER, "NSS_WRAPPER_HOSTS": self.path("hosts")}

    def run(self, args, **more):
        """Something of the stage's own, in a session of its own, that ends with the stage."""
        with open(self.path("parent.log"), "a", encoding="utf-8") as log:
            process = subprocess.Popen(args, stderr=log, start_new_session=True, **more)
        self.sessions.add(process.pid)
        self.callback(process.wait)
        self.callback(process.kill)
        return process

    def run_server(self, program, *args, **more):
        """A server that prints its port."""
        command = [sys.executable, program, *args]
        server = self.run(command, stdout=subprocess.PIPE, text=True, **more)
        self.callback(server.stdout.close)
        return int(server.stdout.readline())

    def start_parent(self):
        environment = {**os.environ, "KODA_PROXY_PORT": "0"}
        return self.run_server(f"{proxies.HERE}/proxy.py", "asyncio", env=environment)

    def start_sshd(self):
        """An sshd for each connection, as inetd runs it: so its port can't be lost."""
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", 0o755, exist_ok=True)  # as the service has it
        for name in ("host-key", "key"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.path(name)]
            subprocess.run(command, check=True)
        self.write("sshd.conf", SSHD_CONFIG.format(folder=self.folder))
        listener = self.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.callback(listener.shutdown, socket.SHUT_RDWR)  # ends the thread
        threading.Thread(target=self.serve_sshd, args=(listener,), daemon=True).start()
        return listener.getsockname()[1]

    def serve_sshd(self, listener):
        command = ["/usr/sbin/sshd", "-i", "-f", self.path("sshd.conf"), "-E", self.path("sshd.log")]
        with contextlib.suppress(OSError):
            while True:
                with listener.accept()[0] as connection:
                    environment = {**os.environ, **self.resolver()}
                    self.run(command, env=environment, stdin=connection, stdout=connection)

    def flags(self, probe_http):
        answers = self.proxy.speaks == "http" and self.proxy.answers_probe
        no_reserve = 0 if self.proxy.reserve else SPEC_NO_RESERVE
        return no_reserve | (SPEC_PROBE_HTTP if probe_http and answers else 0)

    def command_line(self, driver, grace_ms, probe_http):
        numbers = (self.port, self.flags(probe_http), grace_ms)
        wrap = self.resolver() if self.proxy.wrap_resolver else {}
        return [
            *(driver, self.folder, self.path("bundle.pem"), *map(str, numbers), self.command),
            *(f"{name}={value}" for name, value in wrap.items()),
        ]


@dataclasses.dataclass(frozen=True)
class Stopped:
    exit_code: int
    term_signal: int
    microseconds: int


class Host:
    """The driver, with the proxy that it has started; all of it is gone after close()."""

    def __init__(self, stage, driver, grace_ms, probe_http=True):
        # What the user's shell might hold: all of it would lead around the proxy.
        hostile = {"NO_PROXY": "*", "no_proxy": ".test", "ALL_PROXY": "socks5://127.0.0.1:1"}
        self.stage = stage
        self.process = subprocess.Popen(
            stage.command_line(driver, grace_ms, probe_http),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**stage.environment, **hostile},
        )
        self.pid = self.port = 0
        try:
            self.read_ready()
        except BaseException:
            self.close()
            raise
        stage.make_bundle()  # now the CA of a proxy that makes one exists

    def read_ready(self):
        words = self.process.stdout.readline().split()
        if words[:1] != ["ready"]:
            raise RuntimeError(f"the proxy did not start:\n{self.stage.read('proxy.log')}")
        self.port, self.pid, self.microseconds = map(int, words[1:])
        lines = iter(self.process.stdout.readline, "\n")
        self.env = dict(line.rstrip("\n").partition(" ")[2].split("=", 1) for line in lines)

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def restart(self):
        self.ask("restart")
        self.read_ready()

    def stop(self):
        self.ask("stop")
        words = self.process.stdout.readline().split()
        if words[:1] != ["exited"]:
            raise RuntimeError(f"the proxy did not stop: {words}")
        return Stopped(*map(int, words[1:]))

    def finish(self):
        """Lets the driver end; returns its exit status."""
        self.process.stdin.close()
        return self.process.wait(GONE_WITHIN_S)

    def close(self):
        """After a failure too, nothing is left."""
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        while left := self.left():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        for path in glob.glob(f"/dev/shm/kp{self.port}-*"):  # of a squid that was killed
            os.remove(path)

    def left(self):
        """What came from the driver and lives, wherever it went; see adopt_orphans()."""
        found = processes.descendants(os.getpid(), self.stage.sessions)
        return [pid for pid in found if pid != self.process.pid]
