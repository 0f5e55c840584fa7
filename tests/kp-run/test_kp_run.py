# SPDX-License-Identifier: Apache-2.0
"""The command kp-run, from outside. $KP_RUN and $FIXTURE_PROXY name the programs."""

import base64
import contextlib
import ctypes
import os
import pty
import random
import resource
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

KP_RUN = os.environ["KP_RUN"]
FIXTURE = os.environ["FIXTURE_PROXY"]
OTHER_PROTOCOL = ("say", r"220 hello\r\n")  # a mode of the fixture
PATIENCE = 20  # seconds; nothing that works comes near it

ENDING = [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1,
          signal.SIGUSR2, signal.SIGALRM, signal.SIGRTMIN]
FORWARDED = [*ENDING, signal.SIGVTALRM, signal.SIGPROF, signal.SIGIO, signal.SIGPWR, signal.SIGPIPE,
             signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT, signal.SIGURG,
             signal.SIGWINCH, signal.SIGRTMAX]

# Says "ready" and each signal that it gets, and ends some time after the first.
TELL_SIGNALS = (sys.executable, "-c", f"""
import os, signal, time
told = []
def tell(number, frame):
    os.write(1, b"got %d\\n" % number)
    told.append(number)
for number in {[int(number) for number in FORWARDED]}:
    signal.signal(number, tell)
os.write(1, b"ready\\n")
while not told:
    time.sleep(0.01)
time.sleep(0.3)
""")


# Enough of one for who looks at its form alone.
CERTIFICATE = ("-----BEGIN CERTIFICATE-----\n"
               + base64.encodebytes(b"\x30\x82\x01\x00" + bytes(256)).decode()
               + "-----END CERTIFICATE-----\n")

# Has the fixture of the mode exit-when-asked exit, and waits for that.
ASK_TO_EXIT = (sys.executable, "-c", """
import os, socket, urllib.parse
proxy = urllib.parse.urlsplit(os.environ["HTTP_PROXY"])
with socket.create_connection((proxy.hostname, proxy.port)) as client:
    client.sendall(b"exit")
    client.recv(1)
""")


def setUpModule():
    """What started the tests may ignore signals (a shell's background job does)."""
    for number in FORWARDED:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def exists(pid):
    """Whether there is such a process; a zombie is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def blocks(pid, number):
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
        mask, = (line.split()[1] for line in status if line.startswith("SigBlk:"))
    return int(mask, 16) >> (number - 1) & 1


def wait_until(condition, what):
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("waited in vain: " + what)
        time.sleep(0.01)


def free_port():
    """At random, outside of the range that the kernel hands out meanwhile."""
    while True:
        port = random.randrange(12000, 32000)
        with contextlib.suppress(OSError), socket.socket() as free:
            free.bind(("", port))
            return port


@contextlib.contextmanager
def unserved_port():
    """A port that refuses, and that nobody else gets meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield str(bound.getsockname()[1])


def variables(output):
    return dict(entry.split("=", 1) for entry in output.split("\0") if entry)


class TestCase(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.pid_file = self.path("proxy-pid")
        self.addCleanup(self.end_proxies)

    def path(self, name):
        return os.path.join(self.folder, name)

    def read(self, name):
        try:
            with open(self.path(name), encoding="utf-8") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def write(self, name, text, mode=0o644):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(self.path(name), mode)
        return self.path(name)

    def fixture(self, *mode):
        """A proxy command: the fixture in a mode, its pid noted."""
        words = [FIXTURE, *mode]
        return f"echo $$ >>{shlex.quote(self.pid_file)}; exec {shlex.join(words)}"

    def slow(self, at_the_end, mode="serve"):
        """A proxy in a shell that runs commands at its SIGTERM; they write to "told"."""
        return (f"trap '{{ {at_the_end}; }} >>{shlex.quote(self.path('told'))}; exit' TERM\n"
                f"{shlex.join([FIXTURE, mode])} &\n"
                f"echo $! >>{shlex.quote(self.pid_file)}\n"
                "while :; do sleep 0.05; done")

    def proxies(self):
        return [int(pid) for pid in self.read("proxy-pid").split()]

    def end_proxies(self):
        """No proxy is left, and what is left all the same is ended."""
        left = [pid for pid in self.proxies() if exists(pid)]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        self.assertEqual(left, [], "proxies left behind")

    def run_it(self, *arguments, **options):
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE,
                   "stderr": subprocess.PIPE, "text": True, "timeout": PATIENCE, **options}
        return subprocess.run([KP_RUN, *arguments], check=False, **options)

    @contextlib.contextmanager
    def running(self, *arguments, **options):
        """kp-run, in a session of its own so that all of it can be ended."""
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE,
                   "stderr": subprocess.PIPE, "text": True, "start_new_session": True, **options}
        with subprocess.Popen([KP_RUN, *arguments], **options) as process:
            try:
                yield process
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def finish(self, process):
        """Status, standard output and standard error."""
        output, errors = process.communicate(timeout=PATIENCE)
        return process.returncode, output, errors


# Gets a tunnel to the proxy itself through the proxy.
GET_THROUGH = (sys.executable, "-c", f"""
import os, socket, urllib.parse
proxy = urllib.parse.urlsplit(os.environ["HTTPS_PROXY"])
with socket.create_connection((proxy.hostname, proxy.port), {PATIENCE}) as client:
    client.sendall(b"CONNECT %s HTTP/1.1\\r\\n\\r\\n" % proxy.netloc.encode())
    assert b" 200 " in client.recv(4096)
""")


class Command(TestCase):
    def test_gets_the_bouquet_and_a_living_proxy(self):
        done = self.run_it("-l", self.path("log"), self.fixture("serve"), "--", *GET_THROUGH)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(len(self.proxies()), 1)

    def test_status_is_passed_on(self):
        done = self.run_it(self.fixture("serve"), "--", "sh", "-c", "exit 7")
        self.assertEqual(done.returncode, 7)

    def test_signal_ends_kp_run_too(self):
        for number in (signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGRTMIN + 3):
            done = self.run_it(self.fixture("serve"), "--", "sh", "-c", f"kill -{int(number)} $$")
            self.assertEqual(done.returncode, -number)

    def test_signal_is_128_more_for_a_shell(self):
        script = f'"$0" "$1" -- sh -c "kill -TERM \\$\\$"; exit $?'
        done = subprocess.run(["sh", "-c", script, KP_RUN, self.fixture("serve")], check=False,
                              stderr=subprocess.DEVNULL, timeout=PATIENCE)
        self.assertEqual(done.returncode, 128 + signal.SIGTERM)

    def test_leaves_no_second_core(self):
        with open("/proc/sys/kernel/core_pattern", encoding="ascii") as pattern:
            if pattern.read().startswith("|"):
                self.skipTest("a program takes the cores here")
        limit = resource.RLIM_INFINITY
        done = self.run_it(self.fixture("serve"), "--", "sh", "-c", "kill -QUIT $$", cwd=self.folder,
                           preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (limit, limit)))
        self.assertEqual(done.returncode, -signal.SIGQUIT)
        self.assertLessEqual(len([name for name in os.listdir(self.folder) if "core" in name]), 1)

    def test_not_executable_is_126(self):
        name = self.write("data", "text\n")
        done = self.run_it(self.fixture("serve"), "--", name)
        self.assertEqual(done.returncode, 126)
        self.assertEqual(done.stderr, f"kp-run: '{name}': Permission denied\n")

    def test_not_found_is_127(self):
        for name in ("no-such-command", "/no/such/command", ""):
            done = self.run_it(self.fixture("serve"), "--", name)
            self.assertEqual(done.returncode, 127)
            self.assertEqual(done.stderr, f"kp-run: '{name}': No such file or directory\n")

    def test_standard_streams_and_arguments_are_its_own(self):
        done = self.run_it(self.fixture("serve"), "--", "sh", "-c", 'cat; echo "$@" >&2', "sh",
                           "--port", "--", "x y", stdin=None, input="the input")
        self.assertEqual((done.stdout, done.stderr), ("the input", "--port -- x y\n"))

    def signals_of(self, prefix, preexec):
        """The signals that a command finds blocked, and those that it finds ignored."""
        command = ("grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status")  # dash clears its mask
        done = subprocess.run([*prefix, *command], check=True, text=True,
                              stdout=subprocess.PIPE, timeout=PATIENCE, preexec_fn=preexec)
        of_the_libc = 0b11 << 31  # 32 and 33, which glibc's posix_spawn() ignores in the child
        return [int(line.split()[1], 16) & ~of_the_libc for line in done.stdout.splitlines()]

    def test_signal_mask_and_dispositions_are_those_given(self):
        def given():
            signal.pthread_sigmask(signal.SIG_SETMASK, [signal.SIGUSR1, signal.SIGWINCH])
            for number in (signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)
            for number in (signal.SIGHUP, signal.SIGTSTP):
                signal.signal(number, signal.SIG_IGN)

        through = [KP_RUN, self.fixture("serve"), "--"]
        self.assertEqual(self.signals_of(through, given), self.signals_of([], given))

    def test_status_is_known_where_sigchld_is_ignored(self):
        done = self.run_it(self.fixture("serve"), "--", "sh", "-c", "exit 7",
                           preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN))
        self.assertEqual((done.returncode, done.stderr), (7, ""))

    def open_descriptors(self, prefix, closed):
        """Which descriptors `ls` finds; its standard output is a file of its own."""
        script = f"ls /proc/self/fd >{shlex.quote(self.path('fds'))}; exit 7"
        done = subprocess.run([*prefix, "sh", "-c", script], check=False, timeout=PATIENCE,
                              stdin=subprocess.DEVNULL,
                              preexec_fn=lambda: [os.close(number) for number in closed])
        self.assertEqual(done.returncode, 7)
        return self.read("fds")

    def test_descriptors_are_those_given(self):
        through = [KP_RUN, "-l", self.path("log"), self.fixture("serve"), "--"]
        for closed in ((), (0,), (1,), (2,), (0, 1, 2)):
            with self.subTest(closed=closed):
                self.assertEqual(self.open_descriptors(through, closed),
                                 self.open_descriptors([], closed))


class Proxy(TestCase):
    def test_output_goes_to_standard_error(self):
        proxy = f"echo to stdout; echo to stderr >&2; {self.fixture('serve')}"
        done = self.run_it(proxy, "--", "echo", "output")
        self.assertEqual(done.stdout, "output\n")
        self.assertEqual(done.stderr, "to stdout\nto stderr\n")

    WRITE_MUCH = (sys.executable, "-c",
                  "import os; print(sum(os.write(2, b'x' * 1000000) for _ in range(5)))")

    def test_may_make_its_output_non_blocking(self):
        done = self.run_it(self.fixture("nonblocking"), "--", *self.WRITE_MUCH)
        self.assertEqual((done.returncode, done.stdout), (0, "5000000\n"))
        self.assertEqual(done.stderr.replace("x", ""), "blocking\n")

    def test_may_do_so_to_a_fifo_that_others_write_to(self):
        os.mkfifo(self.path("log"))
        reader = os.open(self.path("log"), os.O_RDONLY | os.O_NONBLOCK)
        with open(reader, "rb") as output:
            command = ("sh", "-c", "cat /proc/$PPID/fdinfo/*")
            done = self.run_it("-l", self.path("log"), self.fixture("nonblocking"), "--", *command)
            self.assertEqual(output.readline(), b"blocking\n")
            self.assertEqual(output.readline(), b"")
        flags = [int(line.split()[1], 8) for line in done.stdout.splitlines()
                 if line.startswith("flags:")]
        of_the_log = [each for each in flags if each & os.O_APPEND]
        self.assertTrue(of_the_log)
        self.assertFalse([each for each in of_the_log if each & os.O_NONBLOCK])

    def test_is_not_told_what_concerns_kp_run_alone(self):
        port = str(free_port())
        told = {"PATH": os.environ["PATH"], "NOTIFY_SOCKET": "/run/notify", "LISTEN_FDS": "1",
                "HTTPS_PROXY": f"http://127.0.0.1:{port}", "http_proxy": "http://127.0.0.1:1"}
        proxy = f"env -0 >{shlex.quote(self.path('env'))}; {self.fixture('serve')}"
        done = self.run_it("-p", port, proxy, "--", "env", "-0", env=told)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(told.keys() & variables(self.read("env")).keys(), {"PATH", "http_proxy"})
        command = variables(done.stdout)
        self.assertEqual((command["NOTIFY_SOCKET"], command["LISTEN_FDS"]), ("/run/notify", "1"))

    def test_goes_through_the_proxy_of_a_kp_run_around(self):
        proxy = f"env -0 >{shlex.quote(self.path('env'))}; {self.fixture('serve')}"
        done = self.run_it(self.fixture("serve"), "--",
                           "sh", "-c", 'echo "$HTTPS_PROXY"; exec "$0" "$@"',
                           KP_RUN, proxy, "--", "sh", "-c", 'echo "$HTTPS_PROXY"')
        self.assertEqual(done.returncode, 0, done.stderr)
        outer, inner = done.stdout.split()
        seen = variables(self.read("env"))
        self.assertEqual(seen["HTTPS_PROXY"], outer)
        self.assertEqual("http://127.0.0.1:" + seen["KODA_PROXY_PORT"], inner)
        self.assertNotEqual(outer, inner)

    def test_failed_start_is_told_and_ignored_where_that_is_asked_for(self):
        environment = {"PATH": os.environ["PATH"], "HTTPS_PROXY": "http://other:1", "B": "2"}
        done = self.run_it("--fail-open", self.fixture("exit", "3"), "--", "env", "-0",
                           env=environment)
        self.assertEqual(done.returncode, 0)
        self.assertEqual(variables(done.stdout), environment)
        self.assertRegex(done.stderr, r"\Akp-run: .*did not bind.*status 3.*\n"
                                      r"kp-run: running 'env' without the proxy\n\Z")

    def test_nothing_runs_around_a_proxy_that_does_not_start(self):
        for proxy, why in ((self.fixture("exit", "3"), "status 3"), ("no-such-proxy", "not found")):
            done = self.run_it(proxy, "--", "echo", "output")
            self.assertEqual((done.returncode, done.stdout), (125, ""))
            self.assertRegex(done.stderr, rf"(?m)^kp-run: .*did not bind.*{why}.*\n"
                                          r"kp-run: not running 'echo' without the proxy\n\Z")

    def test_is_told_of_where_that_is_asked_for(self):
        for option in ("-v", "--verbose"):
            done = self.run_it(option, self.fixture("serve"), "--", "sh", "-c", "echo $HTTP_PROXY")
            pid = self.proxies()[-1]
            self.assertEqual(done.returncode, 0)
            self.assertRegex(done.stderr,
                             rf"\Akp-run: proxy {pid} is ready on {done.stdout.strip()} after \d+ ms\n"
                             rf"kp-run: proxy {pid} is gone after \d+ ms: killed by signal 15\n\Z")

    def test_end_by_itself_is_told_of_too(self):
        """Also as a failure, unless the command has ended before it."""
        done = self.run_it("-v", self.fixture("exit-when-asked", "3"), "--", *ASK_TO_EXIT)
        self.assertRegex(done.stderr, r"\Akp-run: proxy .* is ready .*\n"
                                      r"(kp-run: .*exited with status 3.*\n)?"
                                      r"kp-run: proxy \d+ is gone after \d+ ms: exited with status 3\n\Z")

    def test_death_is_told(self):
        script = "while kill -0 $(cat \"$0\") 2>/dev/null; do sleep 0.01; done; sleep 0.2; exit 7"
        done = self.run_it(self.fixture("die-after", "1000"), "--", "sh", "-c", script, self.pid_file)
        self.assertEqual(done.returncode, 7)
        self.assertRegex(done.stderr, r"\Akp-run: .*exited.*status 3.*\n\Z")

    def test_wrapper_shell_and_workers_end_too(self):
        proxy = f"sleep 60 & echo $! >>{shlex.quote(self.pid_file)}; {self.fixture('serve')} & wait"
        done = self.run_it(proxy, "--", "true")
        self.assertEqual(done.returncode, 0)
        self.assertEqual(len(self.proxies()), 2)

    def test_ends_with_a_killed_kp_run(self):
        script = "echo ready; exec sleep 60"
        with self.running(self.fixture("serve"), "--", "sh", "-c", script) as process:
            process.stdout.readline()
            process.kill()
            wait_until(lambda: not exists(self.proxies()[0]), "the guard ends the proxy")

    def test_broken_standard_error_ends_nothing(self):
        reader, writer = os.pipe()
        os.close(reader)
        try:
            done = self.run_it("--fail-open", self.fixture("exit", "3"), "--", "sh", "-c", "exit 7",
                               stderr=writer)
        finally:
            os.close(writer)
        self.assertEqual(done.returncode, 7)


class Options(TestCase):
    def environment(self, *options, proxy=None, **more):
        done = self.run_it(*options, proxy or self.fixture("serve"), "--", "env", "-0", **more)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return variables(done.stdout)

    def facts(self, *options):
        """What the fixture says of itself."""
        done = self.run_it(*options, self.fixture("environ", self.path("facts")), "--", "true")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return dict(line.split(" ", 1) for line in self.read("facts").splitlines()
                    if not line.startswith("env "))

    def test_port(self):
        for option in ("-p", "--port"):
            port = free_port()
            environment = self.environment(option, str(port))
            self.assertEqual(environment["ALL_PROXY"], f"http://127.0.0.1:{port}")
        self.assertNotEqual(self.environment("--port=0")["ALL_PROXY"], "http://127.0.0.1:0")

    def test_port_that_is_taken(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            done = self.run_it("-p", str(port), self.fixture("serve"), "--", "true")
        self.assertEqual(done.returncode, 125)
        self.assertIn(str(port), done.stderr)
        self.assertEqual(self.proxies(), [])

    def test_timeout(self):
        for option in ("-t0.15", "--timeout=.15", "--timeout=0"):
            done = self.run_it(option, self.fixture("never"), "--", "true")
            self.assertEqual(done.returncode, 125)
            self.assertRegex(done.stderr, "did not bind.*timed out")

    def ended_by_itself(self, seconds, *options):
        """Whether a proxy had the time to end so long after its SIGTERM."""
        done = self.run_it(*options, self.slow(f"sleep {seconds}; echo ended"), "--", "true")
        self.assertEqual(done.returncode, 0)
        return "ended" in self.read("told")

    def test_grace(self):
        for option in ("-g0", "--grace=0", "--grace=0.05"):
            self.assertFalse(self.ended_by_itself(1, option), "killed before the default of 2")
        self.assertTrue(self.ended_by_itself(2.5, "--grace=15"), "killed after the default of 2")

    def test_ca_bundle(self):
        names = ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
        for option in ("-c", "--ca-bundle"):
            environment = self.environment(option, self.write("ca.pem", CERTIFICATE))
            self.assertEqual([environment.get(name) for name in names], [self.path("ca.pem")] * 4)

    def test_ca_bundle_is_found_from_everywhere(self):
        self.write("ca.pem", CERTIFICATE)
        environment = self.environment("-c", "ca.pem", cwd=self.folder)
        self.assertEqual(environment["SSL_CERT_FILE"], os.path.join(os.path.realpath(self.folder), "ca.pem"))

    def test_ca_bundle_that_is_none_is_told_at_once(self):
        der = base64.b64decode("".join(CERTIFICATE.split("-----")[2].split()))
        with open(self.path("der"), "wb") as file:
            file.write(der)
        os.mkfifo(self.path("fifo"))
        for name, why in ((self.path("missing"), "No such file or directory"),
                          (self.folder, "it is a folder, not a file"),
                          (self.path("fifo"), "it is not a regular file"),
                          (self.write("empty", ""), "it is empty"),
                          (self.path("der"), "it holds no PEM certificate: is it DER?"),
                          (self.write("key", CERTIFICATE.replace("CERTIFICATE", "PRIVATE KEY")),
                           "it holds no PEM certificate (-----BEGIN CERTIFICATE-----)"),
                          (self.write("cut", CERTIFICATE[:100]), "its certificate has no end"),
                          (self.write("closed", CERTIFICATE, 0), "Permission denied"),
                          ("", "No such file or directory")):
            if name.endswith("closed") and os.geteuid() == 0:
                continue
            for proxy in ([self.fixture("serve")], ["--attach=1"]):
                done = self.run_it("--fail-open", "-c", name, *proxy, "--", "echo", "output")
                self.assertEqual((done.returncode, done.stdout), (125, ""))
                self.assertEqual(done.stderr, f"kp-run: --ca-bundle: '{name}': {why}\n")
        self.assertEqual(self.proxies(), [])

    @unittest.skipIf(os.geteuid() != 0, "becoming somebody else needs root")
    def test_ca_bundle_that_others_may_not_read(self):
        name = self.write("closed", CERTIFICATE, 0)
        os.chmod(self.folder, 0o755)
        done = self.run_it("-c", name, "true", "--", "true", user=54321, group=54321)
        self.assertEqual((done.returncode, done.stderr),
                         (125, f"kp-run: --ca-bundle: '{name}': Permission denied\n"))

    def test_no_proxy(self):
        for value in ("", "a.example,b.example"):
            for option in ("-n", "--no-proxy"):
                environment = self.environment(option, value)
                self.assertEqual((environment["NO_PROXY"], environment["no_proxy"]), (value, value))
        self.assertIn("localhost", self.environment()["NO_PROXY"])

    def test_port_env(self):
        more = {"env": {**os.environ, "FIXTURE_PORT_ENV": "THE_PORT"}}
        for option in ("-e", "--port-env"):
            self.assertIn("HTTPS_PROXY", self.environment(option, "THE_PORT", **more))

    def test_log(self):
        proxy = f"echo started; {self.fixture('serve')}"
        for option in ("-l", "--log"):
            self.environment(option, self.path("log"), proxy=proxy)
        self.assertEqual(self.read("log"), "started\nstarted\n")

    def test_log_is_quoted_on_failure(self):
        proxy = self.fixture("print-exit", "1", "no licence")
        done = self.run_it("-l", self.path("log"), proxy, "--", "true")
        self.assertEqual(done.returncode, 125)
        self.assertIn("no licence\n", done.stderr)

    def test_no_guard(self):
        facts = self.facts()
        self.assertNotEqual(facts["pgid"], facts["pid"], "the guard leads the group")
        os.remove(self.path("facts"))
        facts = self.facts("--no-guard")
        self.assertEqual(facts["pgid"], facts["pid"])

    def test_no_reserve(self):
        done = self.run_it(self.fixture("noreuse"), "--", "true")
        self.assertEqual(done.returncode, 125)
        self.environment("--no-reserve", proxy=self.fixture("noreuse"))

    def test_probe_http(self):
        proxy = self.fixture(*OTHER_PROTOCOL)
        self.environment(proxy=proxy)
        done = self.run_it("--probe-http", proxy, "--", "echo")
        self.assertEqual((done.returncode, done.stdout), (125, ""))
        self.assertIn("HTTP", done.stderr)
        done = self.run_it("--probe-http", "-l", self.path("log"), self.fixture("serve"), "--", *GET_THROUGH)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def daemon(self, ended):
        """Opens the port that a proxy command asks for by a file, as Docker's does."""
        wait_until(lambda: self.read("asked").endswith("\n"), "it is asked")
        with socket.create_server(("127.0.0.1", int(self.read("asked")))):
            ended.wait(PATIENCE)

    def run_beside_a_daemon(self, *options):
        self.write("asked", "")
        ended = threading.Event()
        thread = threading.Thread(target=self.daemon, args=[ended])
        thread.start()
        try:
            asking = f"echo $KODA_PROXY_PORT >{shlex.quote(self.path('asked'))}; exec sleep 60"
            return self.run_it(*options, asking, "--", "true")
        finally:
            ended.set()
            thread.join(PATIENCE)

    def test_any_listener(self):
        done = self.run_beside_a_daemon()
        self.assertEqual(done.returncode, 125)
        self.assertIn("KP_SPEC_ANY_LISTENER", done.stderr)
        done = self.run_beside_a_daemon("--any-listener")
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_help_and_version(self):
        for option in ("-h", "--help"):
            done = self.run_it(option)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertTrue(done.stdout.startswith("Usage: kp-run "))
        for option in ("-V", "--version"):
            done = self.run_it(option)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertRegex(done.stdout, r"\Akp-run \d+\.\d+\.\d+\n\Z")
        with open("/dev/full", "w", encoding="ascii") as full:
            self.assertEqual(self.run_it("--help", stdout=full).returncode, 125)

    def test_bad_values_are_named(self):
        bad = {
            "port": ("65536", "-1", "", "x", "80x", " 80", "0x50", "99999999999999999999"),
            "timeout": ("-1", "", "x", "1s", "inf", "nan", "1e3", "1.2.3", ".", "99999999999"),
            "grace": ("-0.1", "", "two", "1000001"),
            "port-env": ("", "A=B"),
            "attach": ("0", "65536", "", "x", "80x"),
            "log": ("", "/no/such/folder/log", "/"),
        }
        for option, values in bad.items():
            for value in values:
                with self.subTest(option=option, value=value):
                    done = self.run_it(f"--{option}={value}", self.fixture("serve"), "--", "echo")
                    self.assertEqual((done.returncode, done.stdout), (125, ""))
                    self.assertIn(f"kp-run: --{option}: '{value}'", done.stderr)
        self.assertEqual(self.proxies(), [])

    def test_wrong_command_lines(self):
        for arguments in ((), ("true",), ("true", "--"), ("", "--", "true"), ("true", "true"),
                          ("true", "true", "--", "true"), ("true", "-v", "--", "true"),
                          ("--", "--", "true"), ("--unknown", "true", "--", "true"),
                          ("-x",), ("--port",), ("--attach",), ("--attach=80",), ("--attach=80", "--"),
                          ("--attach=80", "true"), ("--attach=80", "true", "--", "true")):
            with self.subTest(arguments=arguments):
                done = self.run_it(*arguments)
                self.assertEqual((done.returncode, done.stdout), (125, ""))
                self.assertIn("Try 'kp-run --help'.\n", done.stderr)

    def test_double_dash_may_end_the_options(self):
        done = self.run_it("-v", "--", self.fixture("serve"), "--", "echo", "--")
        self.assertEqual((done.returncode, done.stdout), (0, "--\n"))


class Attach(TestCase):
    def setUp(self):
        super().setUp()
        self.proxy, self.port = self.run_fixture("serve")

    def reserved_port(self):
        """One that the fixture alone gets, which binds with SO_REUSEADDR too."""
        reservation = socket.socket()
        self.addCleanup(reservation.close)
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reservation.bind(("127.0.0.1", 0))
        return str(reservation.getsockname()[1])

    def run_fixture(self, *mode):
        """A proxy that kp-run has not started, and its port."""
        port = self.reserved_port()
        proxy = subprocess.Popen([FIXTURE, *mode], env={"KODA_PROXY_PORT": port},
                                 stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(proxy.wait)
        self.addCleanup(proxy.kill)
        return proxy, port

    def get_through(self, *options):
        done = self.run_it(*options, "--", *GET_THROUGH)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_goes_through_it_and_leaves_it_alone(self):
        for option in ("-a", "--attach"):
            self.get_through(option, self.port)
            self.get_through("--probe-http", "--any-listener", option, self.port)
        self.assertIsNone(self.proxy.poll())

    def test_bouquet_is_the_same(self):
        options = ("-c", self.write("ca.pem", CERTIFICATE), "-n", "a.example")
        attached = self.run_it("--attach", self.port, *options, "--", "env", "-0")
        started = self.run_it(*options, self.fixture("serve"), "--", "env", "-0")
        url = variables(started.stdout)["ALL_PROXY"]
        self.assertEqual(attached.stdout, started.stdout.replace(url, f"http://127.0.0.1:{self.port}"))

    def test_status_is_passed_on(self):
        done = self.run_it("--attach", self.port, "--", "sh", "-c", "exit 7")
        self.assertEqual((done.returncode, done.stderr), (7, ""))

    def test_nobody_answers(self):
        with unserved_port() as port:
            options = ("--attach", port, "-t0.15")
            for more, running, result in (((), "not running", (125, "")),
                                          (("--fail-open",), "running", (0, "output\n"))):
                done = self.run_it(*more, *options, "--", "echo", "output")
                self.assertEqual((done.returncode, done.stdout), result)
                self.assertRegex(done.stderr, rf"\Akp-run: .*{port}.*\n"
                                              rf"kp-run: {running} 'echo' without the proxy\n\Z")

    def test_is_told_of_where_that_is_asked_for(self):
        done = self.run_it("-v", "--attach", self.port, "--", "true")
        self.assertRegex(done.stderr, rf"\Akp-run: attached to http://127.0.0.1:{self.port} "
                                      r"after \d+ ms\n\Z")

    def test_other_protocol(self):
        other, port = self.run_fixture(*OTHER_PROTOCOL)
        options = ("--attach", port)
        self.assertEqual(self.run_it(*options, "--", "true").returncode, 0)
        done = self.run_it(*options, "--probe-http", "--", "true")
        self.assertEqual(done.returncode, 125)
        self.assertIn("HTTP", done.stderr)
        self.assertIsNone(other.poll())

    def test_signal_ends_the_wait(self):
        with unserved_port() as port, self.running("-t", "60", "--attach", port, "--", "echo", "ran") as process:
            wait_until(lambda: blocks(process.pid, signal.SIGTERM), "it takes its signals by a descriptor")
            process.send_signal(signal.SIGTERM)
            self.assertEqual(self.finish(process), (-signal.SIGTERM, "", ""))

    def test_options_of_a_start_are_refused(self):
        for option in ("--port=80", "--port-env=A", "--grace=1", "--log=" + self.path("log"),
                       "--no-guard", "--no-reserve"):
            for options in ((option, "--attach=80"), ("--attach=80", option)):
                with self.subTest(options=options):
                    done = self.run_it(*options, "--", "echo", "output")
                    self.assertEqual((done.returncode, done.stdout), (125, ""))
                    words = f"--attach starts no proxy: {option.partition('=')[0]} does not go with it"
                    self.assertEqual(done.stderr, f"kp-run: {words}\n")


class Signals(TestCase):
    def test_are_passed_on_once(self):
        for number in FORWARDED:
            with self.subTest(signal=number), \
                    self.running(self.fixture("serve"), "--", *TELL_SIGNALS) as process:
                self.assertEqual(process.stdout.readline(), "ready\n")
                process.send_signal(number)
                self.assertEqual(self.finish(process), (0, f"got {int(number)}\n", ""))

    def test_are_passed_on_without_a_proxy_too(self):
        with self.running("--fail-open", self.fixture("exit", "1"), "--", *TELL_SIGNALS) as process:
            self.assertEqual(process.stdout.readline(), "ready\n")
            process.send_signal(signal.SIGTERM)
            self.assertEqual(self.finish(process)[:2], (0, "got 15\n"))

    def test_end_the_command_and_then_the_proxy(self):
        script = "echo ready; exec sleep 60"
        with self.running(self.fixture("serve"), "--", "sh", "-c", script) as process:
            process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            self.assertEqual(self.finish(process)[0], -signal.SIGTERM)

    def test_of_the_command_do_not_come_back(self):
        script = ("import os, signal, time; told = []\n"
                  "signal.signal(signal.SIGTERM, lambda *_: told.append(1))\n"
                  "os.kill(os.getppid(), signal.SIGTERM); time.sleep(0.3); print(len(told))")
        done = self.run_it(self.fixture("serve"), "--", sys.executable, "-c", script)
        self.assertEqual((done.returncode, done.stdout), (0, "0\n"))

    def test_of_what_the_command_starts_do_not_come_back(self):
        """A shell's `kill 0` reaches kp-run, too."""
        script = "trap 'echo told' USR1; sh -c 'trap \"\" USR1; kill -USR1 0; sleep 0.3'"
        with self.running(self.fixture("serve"), "--", "sh", "-c", script) as process:
            self.assertEqual(self.finish(process)[:2], (0, "told\n"))

    def test_number_that_is_sent_along_goes_along(self):
        script = ("import os, signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])\n"
                  "os.write(1, b'ready\\n'); info = signal.sigwaitinfo([signal.SIGRTMIN])\n"
                  "print(info.si_code)")
        with self.running(self.fixture("serve"), "--", sys.executable, "-c", script) as process:
            self.assertEqual(process.stdout.readline(), "ready\n")
            queue = ctypes.CDLL(None).sigqueue
            self.assertEqual(queue(process.pid, int(signal.SIGRTMIN), ctypes.c_void_p(7)), 0)
            self.assertEqual(self.finish(process), (0, "-1\n", "")) # SI_QUEUE

    def test_alarm_that_was_set_before_ends_the_command(self):
        """As `perl -e 'alarm 1; exec @ARGV'` does it."""
        with self.running(self.fixture("serve"), "--", "sleep", "60",
                          preexec_fn=lambda: signal.setitimer(signal.ITIMER_REAL, 0.5)) as process:
            self.assertEqual(self.finish(process), (-signal.SIGALRM, "", ""))

    def test_that_were_ignored_remain_so(self):
        def given():
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

        with self.running(self.fixture("late", "300"), "--", "sh", "-c", "sleep 0.3; exit 7",
                          preexec_fn=given) as process:
            while process.poll() is None:
                process.send_signal(signal.SIGHUP)
                time.sleep(0.01)
            self.assertEqual(self.finish(process), (7, "", ""))

    def test_end_the_start(self):
        for number in ENDING:
            started = len(self.proxies())
            with self.subTest(signal=number), \
                    self.running("-t", "60", self.fixture("never"), "--", "echo", "ran") as process:
                wait_until(lambda: len(self.proxies()) > started, "the proxy starts")
                process.send_signal(number)
                self.assertEqual(self.finish(process), (-number, "", ""))

    def is_stopping(self):
        return "stopping" in self.read("told")

    def test_second_one_ends_the_grace(self):
        proxy = self.slow("echo stopping; sleep 60")
        with self.running("-g", "60", proxy, "--", "true") as process:
            wait_until(self.is_stopping, "the stop begins")
            process.send_signal(signal.SIGINT)
            time.sleep(0.3)
            self.assertIsNone(process.poll(), "the first finds the proxy being stopped already")
            process.send_signal(signal.SIGINT)
            self.assertEqual(self.finish(process)[0], 0)

    def test_one_after_that_of_the_start_ends_the_grace(self):
        proxy = self.slow("echo stopping; sleep 60", "never")
        with self.running("-g", "60", "-t", "60", proxy, "--", "echo") as process:
            wait_until(self.proxies, "the proxy starts")
            process.send_signal(signal.SIGTERM)
            wait_until(self.is_stopping, "the stop begins")
            process.send_signal(signal.SIGINT)
            self.assertEqual(self.finish(process)[:2], (-signal.SIGTERM, ""))

    @contextlib.contextmanager
    def telling_on_terminal(self):
        """kp-run as the leader of a session with a terminal, and its command that tells its
        signals into a file: kp-run's pid and the terminal's master side."""
        tell = shlex.join(TELL_SIGNALS)
        script = f"exec {tell} >{shlex.quote(self.path('told'))}"
        pid, master = pty.fork()
        if pid == 0:
            os.execv(KP_RUN, [KP_RUN, self.fixture("serve"), "--", "sh", "-c", script])
        try:
            wait_until(lambda: "ready" in self.read("told"), "the command starts")
            yield pid, master
        finally:
            with contextlib.suppress(OSError):
                os.close(master)
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    def ended(self, pid):
        wait_until(lambda: not exists(pid), "kp-run ends")
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def test_ctrl_c_reaches_the_command_once(self):
        with self.telling_on_terminal() as (pid, master):
            # Stopped, kp-run can't pass the signal on before the first one is told.
            os.kill(pid, signal.SIGSTOP)
            os.write(master, b"\x03")
            wait_until(lambda: "got" in self.read("told"), "the terminal's signal arrives")
            os.kill(pid, signal.SIGCONT)
            self.assertEqual(self.ended(pid), 0)
        self.assertEqual(self.read("told").replace("got 18\n", ""), "ready\ngot 2\n")

    def test_hangup_reaches_the_command(self):
        with self.telling_on_terminal() as (pid, master):
            os.close(master)
            self.assertEqual(self.ended(pid), 0)
        self.assertEqual(self.read("told"), "ready\ngot 1\n")


if __name__ == "__main__":
    unittest.main()
