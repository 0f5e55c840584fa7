# SPDX-License-Identifier: Apache-2.0
"""kp-run on a terminal, under an interactive shell and under scripts: whatever is typed does to
the command what it does without kp-run. Where that can be shown, `env` is in its place first."""

import contextlib
import os
import pty
import select
import shlex
import signal
import time
import unittest

import test_kp_run
from test_kp_run import FIXTURE, KP_RUN, PATIENCE, TestCase, exists, wait_until

CTRL_C, CTRL_Z, CTRL_BACKSLASH = "\x03", "\x1a", "\x1c"
PROMPT = "prompt> "

# Seconds for sleep(1), by which a process of this run is known.
NAP = [f"600{number}.{os.getpid()}" for number in range(10)]


class Terminal:
    """A program, by default an interactive bash, that leads a session on a terminal of its own."""

    def __init__(self, *argv):
        argv = argv or ("bash", "--norc", "--noprofile", "--noediting", "-i")
        self.seen = ""
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.environ.update(PS1=PROMPT, TERM="dumb", HISTFILE="")
            os.execvp(argv[0], argv)

    def type(self, text):
        os.write(self.master, text.encode())

    def run(self, line):
        self.type(line + "\n")

    def expect(self, text):
        """Reads on until this comes, and forgets all up to it."""
        end = time.monotonic() + PATIENCE
        while text not in self.seen:
            ready = select.select([self.master], [], [], max(0, end - time.monotonic()))[0]
            try:
                read = os.read(self.master, 4096).decode(errors="replace") if ready else ""
            except OSError:
                read = ""
            if not read:
                raise AssertionError(f"{text!r} never came after {self.seen!r}")
            self.seen += read
        before, _, self.seen = self.seen.partition(text)
        return before

    def fg(self):
        """What is typed next comes to the job."""
        self.run("fg")
        wait_until(lambda: os.tcgetpgrp(self.master) != self.pid, "the job is in the foreground")

    def close(self):
        """With all that is left of its session; a kp-run's proxy ends by itself then."""
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError, ValueError):
                if os.getsid(int(entry)) == self.pid:
                    os.kill(int(entry), signal.SIGKILL)
        os.close(self.master)
        os.waitpid(self.pid, 0)


class OnTerminal(TestCase):
    def terminal(self, *argv):
        terminal = Terminal(*argv)
        self.addCleanup(terminal.close)
        if not argv:
            terminal.expect(PROMPT)
        return terminal

    def wrappers(self):
        """What comes in front of a command: env, which shows what is usual, and kp-run."""
        return "env", self.wrapper()

    def wrapper(self, *mode):
        return shlex.join([KP_RUN, self.fixture(*(mode or ("serve",))), "--"])

    def is_asleep(self, name):
        """Whether a program of this name sleeps somewhere below this process."""
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError, ValueError):
                with open(f"/proc/{int(entry)}/cmdline", "rb") as line:
                    if line.read().split(b"\0")[:2] == name.encode().split():
                        return True
        return False

    def await_sleep(self, seconds):
        wait_until(lambda: self.is_asleep(f"sleep {seconds}"), f"sleep {seconds} runs")


class Keys(OnTerminal):
    def test_ctrl_c_reaches_who_has_a_group_of_its_own(self):
        own_group = "python3 -c 'import os; os.setpgid(0, 0); " \
                    f"os.execlp(\"sleep\", \"sleep\", \"{NAP[3]}\")'"
        for command, seconds in ((f"timeout 60 sleep {NAP[1]}", NAP[1]),
                                 (f"setsid -w sleep {NAP[2]}", NAP[2]),
                                 (own_group, NAP[3])):
            for key in (CTRL_C, CTRL_BACKSLASH):
                with self.subTest(command=command, key=key):
                    terminal = self.terminal()
                    terminal.run(f"{self.wrapper()} {command}")
                    self.await_sleep(seconds)
                    terminal.type(key)
                    terminal.expect(PROMPT)
                    terminal.run("echo status=$?")
                    self.assertNotIn("status=0", terminal.expect(PROMPT))
                    wait_until(lambda: not self.is_asleep(f"sleep {seconds}"), "it ends")

    def test_ctrl_c_ends_a_loop(self):
        for wrapper in self.wrappers():
            terminal = self.terminal()
            terminal.run(f"for i in 1 2 3; do echo run=$i; {wrapper} sleep {NAP[4]}; done; echo status=$?")
            terminal.expect("run=1")
            self.await_sleep(NAP[4])
            terminal.type(CTRL_C)
            self.assertNotIn("run=2", terminal.expect(PROMPT))
            terminal.run("echo status=$?")
            terminal.expect("status=130")

    def test_ctrl_c_ends_make_and_xargs(self):
        for wrapper in self.wrappers():
            self.write("Makefile", f"all:\n\t-{wrapper.replace('$', '$$')} sleep {NAP[5]}\n\techo went on\n")
            words = f"{wrapper} sleep {NAP[5]}"
            for line in (f"make -C {self.folder}", f"echo 1 2 | xargs -n 1 sh -c {shlex.quote(words)}"):
                terminal = self.terminal()
                terminal.run(line)
                self.await_sleep(NAP[5])
                terminal.type(CTRL_C)
                self.assertNotIn("\nwent on", terminal.expect(PROMPT))
                wait_until(lambda: not self.is_asleep(f"sleep {NAP[5]}"), "it ends")

    def test_a_command_that_handles_ctrl_c_has_its_status(self):
        for wrapper in self.wrappers():
            terminal = self.terminal()
            terminal.run(f"{wrapper} sh -c 'trap \"exit 0\" INT; echo up=$PPID; while :; do sleep 0.1; done'"
                         "; echo status=$?")
            terminal.expect("\nup=")
            terminal.type(CTRL_C)
            terminal.expect("status=0")


class Jobs(OnTerminal):
    def test_ctrl_z_and_fg(self):
        for wrapper in self.wrappers():
            terminal = self.terminal()
            terminal.run(f"{wrapper} sleep {NAP[6]}")
            self.await_sleep(NAP[6])
            terminal.type(CTRL_Z)
            terminal.expect("Stopped")
            terminal.expect(PROMPT)
            terminal.fg()
            terminal.expect(f"sleep {NAP[6]}")
            terminal.type(CTRL_C)
            terminal.expect(PROMPT)
            wait_until(lambda: not self.is_asleep(f"sleep {NAP[6]}"), "it ends")

    def test_a_command_that_stops_itself(self):
        for wrapper in self.wrappers():
            terminal = self.terminal()
            terminal.run(f"{wrapper} sh -c 'kill -STOP $$; echo went=on'; echo status=$?")
            terminal.expect("Stopped")
            terminal.expect(PROMPT)
            for pid in self.proxies():
                self.assertTrue(exists(pid), "the proxy lives through it")
            terminal.run("fg")
            terminal.expect("\nwent=on")
            terminal.expect(PROMPT)

    def test_a_command_in_a_group_of_its_own_that_stops_itself(self):
        script = "import os; os.setpgid(0, 0); os.kill(os.getpid(), 19); print('went=' + 'on')"
        self.write("stops.py", script)
        terminal = self.terminal()
        terminal.run(f"{self.wrapper()} python3 {self.path('stops.py')}")
        terminal.expect("Stopped")
        terminal.expect(PROMPT)
        terminal.run("fg")
        terminal.expect("went=on")
        terminal.expect(PROMPT)

    def test_one_in_the_background_that_reads(self):
        """As an editor does."""
        for wrapper in self.wrappers():
            terminal = self.terminal()
            terminal.run(f"{wrapper} sh -c 'read line; echo got=$line' &")
            terminal.expect(PROMPT)
            end = time.monotonic() + PATIENCE
            while "Stopped" not in terminal.seen and time.monotonic() < end:
                terminal.run("jobs")
                terminal.expect("jobs")
                terminal.seen = terminal.expect(PROMPT)
            terminal.expect("Stopped")
            terminal.fg()
            terminal.expect("read line")
            terminal.type("a line\n")
            terminal.expect("got=a line")
            terminal.expect(PROMPT)

    def test_one_that_is_stopped_before_the_proxy_is_ready(self):
        terminal = self.terminal()
        terminal.run(f"{shlex.join([KP_RUN, '-t', '60', self.fixture('never')])} -- true")
        wait_until(self.proxies, "the proxy starts")
        terminal.type(CTRL_Z)
        terminal.expect("Stopped")
        terminal.expect(PROMPT)
        terminal.fg()
        terminal.expect("-- true")
        terminal.type(CTRL_C)
        terminal.expect(PROMPT)
        terminal.run("echo status=$?")
        terminal.expect("status=130")


class Foreground(OnTerminal):
    def test_comes_back_when_an_interactive_command_dies(self):
        script = self.write("script", f"{self.wrapper()} bash --norc -ic 'kill -9 $$'\n"
                                      "echo asks=now; read line; echo got=$line; sleep 0.1\n")
        terminal = self.terminal("bash", script)
        terminal.expect("asks=now")
        terminal.type("words\n")
        terminal.expect("got=words")

    def test_is_an_interactive_shells(self):
        terminal = self.terminal()
        terminal.run(f"{self.wrapper()} bash --norc --noprofile --noediting -i")
        terminal.expect(PROMPT)
        terminal.run(f"sleep {NAP[7]}")
        self.await_sleep(NAP[7])
        terminal.type(CTRL_Z)
        terminal.expect("Stopped")
        terminal.run("kill -9 %1; wait %1; echo in=$((1 + 1))")
        terminal.expect("in=2")
        terminal.run("exit 7")
        terminal.expect("exit")
        terminal.expect(PROMPT)
        terminal.run("echo status=$?")
        terminal.expect("status=7")


class Output(OnTerminal):
    def test_a_proxy_that_is_stopped_for_its_output_is_told(self):
        go = shlex.quote(self.path("go"))
        proxy = (f"echo $$ >>{shlex.quote(self.pid_file)}\n{shlex.quote(FIXTURE)} serve & "
                 f"while [ ! -e {go} ]; do sleep 0.05; done; echo words >&2; wait")
        terminal = self.terminal()
        terminal.run("stty tostop")
        terminal.expect(PROMPT)
        terminal.run(f"{shlex.join([KP_RUN, proxy])} -- sh -c '>{go}; exec sleep {NAP[8]}'")
        terminal.expect("was stopped by signal 22: the terminal stops background output")
        terminal.type(CTRL_C)
        terminal.expect(PROMPT)
        terminal.run("stty -tostop")
        terminal.expect(PROMPT)


if __name__ == "__main__":
    test_kp_run.setUpModule()
    unittest.main()
