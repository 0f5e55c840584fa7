# SPDX-License-Identifier: Apache-2.0
"""What the tests of owners and of wrappers share.

A scene has a folder that every user can read, the programs in it, and a mark: a word that
stands in the environment, or among the arguments, of everything that the scene starts. What
bears the mark after a test is ended by its id. $KP_HOST, $KP_FIXTURE and $KP_STRANGE name the
programs.
"""

import concurrent.futures
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest

PATIENCE = 20  # seconds; nothing that works comes near it
IS_ROOT = os.geteuid() == 0
REQUIRED = os.environ.get("KP_TEST_REQUIRE") == "1"


def left_out(reason):
    """A test that can't hold here says so by name."""
    raise unittest.SkipTest(f"left out {reason}")


def need_root():
    if not IS_ROOT:
        left_out("without root")


def need_program(name):
    if shutil.which(name) is None:
        if REQUIRED:
            raise AssertionError(f"{name} is not installed")
        left_out(f"without {name}")


def wait_until(condition, what):
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited in vain: {what}")
        time.sleep(0.005)


# ---- Processes -----------------------------------------------------------------------------


def read_bytes(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""


def pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def stat_fields(pid):
    """State, parent and group of a process; None where there is none, or a zombie."""
    fields = read_bytes(f"/proc/{pid}/stat").rpartition(b")")[2].split()[:3]
    if len(fields) < 3 or fields[0] in (b"X", b"Z"):
        return None
    return fields[0].decode(), int(fields[1]), int(fields[2])


def children(pid):
    return [child for child in pids() if (stat_fields(child) or (0, 0))[1] == pid]


def group_of(pid):
    fields = stat_fields(pid)
    return fields and fields[2]


def has_threads_left(pid):
    """A process whose main thread has ended looks like a zombie."""
    return len(os.listdir(f"/proc/{pid}/task")) > 1


def lives(pid):
    with contextlib.suppress(OSError):
        return stat_fields(pid) is not None or has_threads_left(pid)
    return False


def bears(pid, mark):
    """A main thread that has ended shows neither: then its other threads do."""
    texts = (read_bytes(f"/proc/{pid}/{name}") for name in ("environ", "cmdline"))
    return any(mark in text for text in texts) or any(
        mark in read_bytes(f"/proc/{pid}/task/{thread}/environ") for thread in threads(pid)
    )


def threads(pid):
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task") if int(name) != pid]
    except OSError:
        return []


# ---- Listeners -----------------------------------------------------------------------------


def listening_inodes(port):
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in read_bytes(table).decode().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                yield int(fields[9])


def descriptors(pid):
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                yield os.readlink(f"/proc/{pid}/fd/{name}")


def listens(port, address="127.0.0.1"):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        return probe.connect_ex((address, port)) == 0


# ---- Hosts ---------------------------------------------------------------------------------


class Host:
    """The program of host.c, and what it has told so far."""

    def __init__(self, scene, options, command, stage=()):
        self.scene = scene
        self.told = {}
        self.process = subprocess.Popen(
            [*stage, scene.host_program, *options, "--", *command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=scene.log, text=True,
            env=scene.environment, cwd=scene.folder, start_new_session=True,
        )

    def read_until(self, word):
        """Ends also when the host does, which gives itself some seconds to live."""
        while word not in self.told:
            line = self.process.stdout.readline()
            if line == "":
                raise AssertionError(f"the host ended early: {self.told} {self.scene.read_log()}")
            name, _, rest = line.rstrip("\n").partition(" ")
            self.told[name] = rest

    @property
    def port(self):
        self.read_until("started")
        return int(self.told["started"].split()[0])

    @property
    def pid(self):
        """Of the proxy."""
        self.read_until("started")
        return int(self.told["started"].split()[1])

    def go_on(self):
        """For one that holds."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    @property
    def result(self):
        self.read_until("took")
        return self.told["result"]

    @property
    def message(self):
        self.read_until("took")
        return self.told["message"]

    @property
    def took(self):
        """Seconds from the first look at the proxy to the result."""
        self.read_until("took")
        return int(self.told["took"]) / 1000

    @property
    def group(self):
        """That of the guard, which is the host's other child, or else the proxy's."""
        leaders = [pid for pid in children(self.process.pid) if group_of(pid) == pid]
        return next((pid for pid in leaders if pid != self.pid), self.pid)

    def free(self):
        """Seconds that kp_handle_free took."""
        self.process.stdin.close()
        self.read_until("children")
        self.process.wait(PATIENCE)
        return int(self.told["freed"]) / 1000

    def close(self):
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()


class Scene:
    def __init__(self):
        self.mark = secrets.token_hex(16)
        self.environment = {**os.environ, "KP_TEST_MARK": self.mark}
        self.folder = tempfile.mkdtemp(prefix="kp-owners-")
        os.chmod(self.folder, 0o755)
        self.hosts = []
        self.bystanders = None
        self.log = open(self.path("log"), "ab")
        self.host_program = self.install("KP_HOST")
        self.fixture = self.install("KP_FIXTURE")
        self.strange = self.install("KP_STRANGE")

    def path(self, name):
        return os.path.join(self.folder, name)

    def install(self, variable, mode=0o755, name=None):
        """A copy that every user can run."""
        source = os.environ[variable]
        path = self.path(name or os.path.basename(source))
        shutil.copyfile(source, path)
        os.chmod(path, mode)
        return path

    def read_log(self):
        return read_bytes(self.path("log")).decode(errors="replace")

    def host(self, options, command, stage=()):
        host = Host(self, options, command, stage)
        self.hosts.append(host)
        return host

    def start_bystanders(self, count, *steps):
        """So many processes that have nothing to do with the proxy."""
        command = [self.strange, *steps, "crowd", str(count), "never"]
        environment = {"PATH": os.environ["PATH"]}
        self.bystanders = subprocess.Popen(command, env=environment, start_new_session=True)
        wait_until(lambda: len(children(self.bystanders.pid)) == count, "all are there")

    def marked(self):
        mark = self.mark.encode()
        return [pid for pid in pids() if lives(pid) and bears(pid, mark)]

    def owners(self, port):
        """Those of the scene that have a listener on the port open."""
        sockets = {f"socket:[{inode}]" for inode in listening_inodes(port)}
        return [pid for pid in self.marked() if sockets.intersection(descriptors(pid))]

    def end_strays(self):
        for pid in self.marked():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def close(self):
        """Ends all that is left, however the test went."""
        for host in self.hosts:
            host.close()
        if self.bystanders is not None:
            os.killpg(self.bystanders.pid, signal.SIGKILL)
            self.bystanders.wait()
        while self.marked():
            self.end_strays()
            time.sleep(0.01)
        self.log.close()
        shutil.rmtree(self.folder)


# ---- A request -----------------------------------------------------------------------------


class Origin:
    """A server that says one word to each client."""

    def __init__(self):
        self.word = secrets.token_hex(8).encode()
        self.server = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.server.accept()
                client.sendall(self.word)
                client.close()

    def close(self):
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()


def answer_through(port, origin):
    """What comes back of a CONNECT to the origin: the proxy's head and the origin's word."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
        client.sendall(f"CONNECT 127.0.0.1:{origin.port} HTTP/1.1\r\n\r\n".encode())
        return b"".join(iter(lambda: client.recv(4096), b""))


# ---- Scenes beside each other --------------------------------------------------------------


class Beside(unittest.TestCase):
    """Tests of which each is one function of the test and a scene. They run in a few threads
    from the start; each test waits for its own."""

    functions = {}
    at_once = 4

    @classmethod
    def add(cls, functions):
        cls.functions = functions
        for name in functions:
            setattr(cls, f"test_{name}", lambda self, name=name: self.runs[name].result())

    @classmethod
    def setUpClass(cls):
        threads = concurrent.futures.ThreadPoolExecutor(max_workers=cls.at_once)
        cls.addClassCleanup(threads.shutdown, cancel_futures=True)
        cls.runs = {name: threads.submit(cls.play, name) for name in cls.functions}

    @classmethod
    def play(cls, name):
        scene = Scene()
        try:
            cls.functions[name](cls(f"test_{name}"), scene)
        finally:
            scene.close()
