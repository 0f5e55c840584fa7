# SPDX-License-Identifier: Apache-2.0
"""What the tests of the Python package share. $KP_FIXTURE names the fixture proxy."""

import contextlib
import faulthandler
import gc
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import warnings

FIXTURE = os.environ["KP_FIXTURE"]
OTHER_PROTOCOL = ("say", r"220 hello\r\n")  # a mode of the fixture
PATIENCE = 30  # seconds; nothing that works comes near it

# A test that hangs says where, before whoever runs it loses patience with the whole file.
LIFETIME = 100
faulthandler.dump_traceback_later(LIFETIME, exit=True)


def stat_fields(pid):
    """State and parent of a process; None where there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            state, parent = stat.read().rpartition(")")[2].split()[:2]
    except OSError:
        return None
    return state, int(parent)


def exists(pid):
    """Whether there is such a process; a zombie is none."""
    fields = stat_fields(pid)
    return fields is not None and fields[0] not in "ZX"


def children(pid):
    """The children of a process, zombies included."""
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return {child for child in pids if (stat_fields(child) or ("", 0))[1] == pid}


def arguments(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as cmdline:
            return os.fsdecode(cmdline.read()).split("\0")[:-1]
    except OSError:
        return []


def descriptors():
    return set(os.listdir("/proc/self/fd"))


def wait_until(condition, what):
    end = time.monotonic() + PATIENCE
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise AssertionError("waited in vain: " + what)
        time.sleep(0.01)


def listens(port):
    with contextlib.suppress(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), PATIENCE).close()
        return True
    return False


def fixture(*mode):
    return [FIXTURE, *map(str, mode)]


def tunnel(proxy):
    """Sends bytes to an origin and back through the proxy, and returns them."""
    with socket.create_server(("127.0.0.1", 0)) as origin, \
            socket.create_connection(("127.0.0.1", proxy.port), PATIENCE) as client:
        origin.settimeout(PATIENCE)
        target = "127.0.0.1:%d" % origin.getsockname()[1]
        client.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        peer = origin.accept()[0]
        with peer:
            answer = b""
            while not answer.endswith(b"\r\n\r\n"):
                answer += client.recv(4096) or b"\r\n\r\n"
            client.sendall(b"there")
            peer.sendall(peer.recv(4096) + b" and back")
            peer.shutdown(socket.SHUT_WR)
            back = b""
            for part in iter(lambda: client.recv(4096), b""):
                back += part
            return answer.split(b" ", 2)[1], back


@contextlib.contextmanager
def unserved_port():
    """A port that refuses, and that nobody else gets meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


class TestCase(unittest.TestCase):
    """Nothing is left after a test: no descriptor, no child, no warning."""

    def setUp(self):
        gc.collect()
        self.before = descriptors(), children(os.getpid())
        catcher = warnings.catch_warnings(record=True)
        self.warned = catcher.__enter__()
        warnings.simplefilter("always")
        # Cleanups run last in, first out: this looks when all others are done.
        self.addCleanup(catcher.__exit__, None, None, None)
        self.addCleanup(self.look_for_leftovers)

    def look_for_leftovers(self):
        gc.collect()
        left = children(os.getpid()) - self.before[1]
        described = [(pid, arguments(pid)) for pid in left]
        for pid in left:
            self.kill(pid)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        self.assertEqual(described, [], "children are left")
        self.assertEqual(descriptors(), self.before[0])
        self.assertEqual([str(each.message) for each in self.warned
                          if issubclass(each.category, ResourceWarning)], [])

    def folder(self):
        path = tempfile.mkdtemp(prefix="kp-python-")
        self.addCleanup(shutil.rmtree, path)
        return path

    def path(self, name):
        return os.path.join(self.folder(), name)

    def kill(self, pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def assert_gone(self, *pids):
        for pid in pids:
            wait_until(lambda pid=pid: not exists(pid), f"{pid} {arguments(pid)} ends")

    def host(self, script, *args, **more):
        """Another Python with this script: for what would end this one."""
        bounded = f"import signal; signal.alarm({LIFETIME})\n"
        process = subprocess.Popen(
            [sys.executable, "-X", "dev", "-c", bounded + script, *args],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            universal_newlines=True, **more)
        self.addCleanup(self.end_host, process)
        return process

    def end_host(self, process):
        """Its guards end its proxies."""
        with process:
            process.kill()

    def run_host(self, script, *args, **more):
        """The exit status and the two outputs of such a Python."""
        process = self.host(script, *args, **more)
        output, errors = process.communicate(timeout=PATIENCE)
        return process.returncode, output, errors
