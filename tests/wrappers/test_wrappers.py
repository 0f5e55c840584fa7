# SPDX-License-Identifier: Apache-2.0
"""Wrappers in front of a proxy: whatever stands between host and proxy, the listener is known
for the proxy's own, and the stop ends all of it, also where the proxy ignores SIGTERM.

The names of the table say what each wrapper does with the group, and the tests hold it so.
"""

import dataclasses
import json
import os
import pty
import shlex
import subprocess
import sys
import typing
import unittest

import scene as scenes

NOBODY = 65534
GRACE_MS = 1000
# The grace, the second that something may be given up in, and what a busy machine adds.
FREE_WITHIN_S = 6.0

STAYS = "stays in the group"
HANDS_ON = "leaves the group, and hands SIGTERM on"
BEHIND = "leaves the group, and leaves the proxy behind"
DAEMON = "ends at once, while the proxy goes on in the background"


class Proxy:
    """What a wrapper is put in front of."""

    def __init__(self, scene, mode=("serve",)):
        self.folder = scene.folder
        self.program = scene.fixture
        self.arguments = [*mode, scene.mark]  # the fixture ignores the last one
        self.words = [self.program, *self.arguments]
        self.line = shlex.join(self.words)

    def file(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path


@dataclasses.dataclass(frozen=True)
class Wrapper:
    group: str  # what it does with the group
    command: typing.Callable[[Proxy], list]
    needs_root: bool = False
    on_terminal: bool = False  # else without a controlling one
    # For what some kernels and containers refuse: the wrapper's words before a program.
    trial: tuple = ()
    options: tuple = ()  # for the host
    in_reach: bool = True  # of the stop, after an exit: it may not be in a session of its own
    impatient: bool = False  # ends a deaf proxy by itself, before the grace


def prefix(group, *words, **more):
    """A wrapper that takes the proxy's words after its own."""
    return Wrapper(group, lambda proxy: [*words, *proxy.words], **more)


def line(group, *words, form="{}; exit $?", after=(), **more):
    """One that takes the proxy as a line for a shell."""
    return Wrapper(group, lambda proxy: [*words, form.format(proxy.line), *after], **more)


def bwrap(group, *options):
    words = ("bwrap", *options, "--dev-bind", "/", "/")
    return prefix(group, *words, trial=words)


def npm(proxy):
    proxy.file("package.json", json.dumps({"name": "x", "scripts": {"proxy": proxy.line}}))
    return ["npm", "run", "--silent", "proxy"]


def supervisord(proxy):
    settings = {"nodaemon": "true", "logfile": "/dev/null", "logfile_maxbytes": "0",
                "pidfile": f"{proxy.folder}/supervisord.pid"}
    lines = [f"{name}={value}" for name, value in settings.items()]
    text = "\n".join(["[supervisord]", *lines, "[program:proxy]", f"command={proxy.line}", ""])
    return ["supervisord", "-n", "-c", proxy.file("supervisord.conf", text)]


def start_stop_daemon(*options):
    # No file of this name: so no other proxy that runs is taken for this one.
    return lambda proxy: ["start-stop-daemon", "--start", *options, "--pidfile",
                          f"{proxy.folder}/none", "--startas", proxy.program, "--", *proxy.arguments]


SUDO = ("sudo", "-n", "--preserve-env=KODA_PROXY_PORT", "-u", f"#{NOBODY}")
DAEMONISE = "import os, sys; os.fork() and os._exit(0); os.setsid(); os.fork() and os._exit(0); " \
    "os.execv(sys.argv[1], sys.argv[1:])"
NEW_SESSION = "import subprocess, sys; subprocess.run(sys.argv[1:], start_new_session=True)"

WRAPPERS = {
    "none": prefix(STAYS),
    "sh": line(STAYS, "sh", "-c"),
    "sh_that_executes": line(STAYS, "sh", "-c", form="exec {}"),
    "bash": line(STAYS, "bash", "-c"),
    "bash_interactive": line(STAYS, "bash", "-ic"),
    "env": prefix(STAYS, "env", "A=1"),
    "nice": prefix(STAYS, "nice"),
    "nice_as_low_as_the_guard": prefix(STAYS, "nice", "-n", "19"),
    "nohup": prefix(STAYS, "nohup"),
    "ionice": prefix(STAYS, "ionice", "-c", "3"),
    "stdbuf": prefix(STAYS, "stdbuf", "-oL"),
    "time": prefix(STAYS, "/usr/bin/time"),
    "time_of_bash": line(STAYS, "bash", "-c", form="time {}"),
    "setpriv": prefix(STAYS, "setpriv", "--no-new-privs"),
    "setpriv_to_another_user": prefix(
        STAYS, "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
        needs_root=True),
    "chroot": prefix(STAYS, "chroot", "/", needs_root=True),
    "flock": Wrapper(STAYS, lambda proxy: ["flock", f"{proxy.folder}/lock", *proxy.words]),
    "xargs": Wrapper(STAYS, lambda proxy: [
        "xargs", "-a", proxy.file("words", " ".join(proxy.arguments)), proxy.program]),
    "make": Wrapper(STAYS, lambda proxy: [
        "make", "-f", proxy.file("rules", f"all:\n\t{proxy.line}; exit $$?\n")]),
    "npm_run": Wrapper(STAYS, npm),
    "strace": prefix(STAYS, "strace", "-f", "-o", "/dev/null",
                     trial=("strace", "-f", "-o", "/dev/null")),
    "bwrap": bwrap(STAYS),
    "bwrap_with_pid_namespace": bwrap(STAYS, "--unshare-pid"),
    "bwrap_with_user_namespace": bwrap(STAYS, "--unshare-user"),
    "timeout_foreground": prefix(STAYS, "timeout", "--foreground", "60"),
    "sudo": prefix(STAYS, *SUDO, needs_root=True),
    "su_session_command": Wrapper(STAYS, lambda proxy: [
        "su", "-s", "/bin/sh", f"--session-command={proxy.line}", "nobody"], needs_root=True),
    "runuser": prefix(STAYS, "runuser", "-u", "nobody", "--", needs_root=True),
    "dumb_init_single_child": prefix(STAYS, "dumb-init", "-c"),
    "start_stop_daemon": Wrapper(STAYS, start_stop_daemon()),
    # As pid 1 of its namespace the proxy ignores SIGTERM: the grace ends it.
    "unshare_pid_namespace": prefix(STAYS, "unshare", "-fp", needs_root=True,
                                    trial=("unshare", "-fp")),

    "tini": prefix(HANDS_ON, "tini", "--"),
    "catatonit": prefix(HANDS_ON, "catatonit", "--"),
    "dumb_init": prefix(HANDS_ON, "dumb-init"),
    "supervisord": Wrapper(HANDS_ON, supervisord),
    "parallel": Wrapper(HANDS_ON, lambda proxy: [
        "parallel", "--will-cite", *proxy.words[:-1], ":::", proxy.words[-1]], impatient=True),
    "gdb": prefix(HANDS_ON, "gdb", "--batch", "-nx", "-ex", "run", "--args",
                  impatient=True),
    "script": line(HANDS_ON, "script", "-qec", after=("/dev/null",)),
    "unbuffer": prefix(HANDS_ON, "unbuffer", impatient=True),
    "sudo_on_a_terminal": prefix(HANDS_ON, *SUDO, needs_root=True, on_terminal=True),

    "timeout": prefix(BEHIND, "timeout", "60"),
    "setsid": prefix(BEHIND, "setsid"),
    "setsid_wait": prefix(BEHIND, "setsid", "--wait"),
    "su": line(BEHIND, "su", "-s", "/bin/sh", "-c", after=("nobody",), needs_root=True),
    "runuser_command": line(BEHIND, "runuser", "-s", "/bin/sh", "-c", after=("nobody",),
                            needs_root=True),
    "bash_job_control": line(BEHIND, "bash", "-c", form="set -m; {} & wait"),
    # The flag that accepts another's listener does not keep the stop from the proxy's own.
    "bash_job_control_with_any_listener": line(
        BEHIND, "bash", "-c", form="set -m; {} & wait", options=("any",)),
    "bash_job_control_without_guard": line(
        BEHIND, "bash", "-c", form="set -m; {} & wait", options=("no-guard",)),
    "su_without_guard": line(BEHIND, "su", "-s", "/bin/sh", "-c", after=("nobody",),
                             needs_root=True, options=("no-guard",)),
    "bwrap_new_session": bwrap(BEHIND, "--new-session"),
    "python_new_session": prefix(BEHIND, "python3", "-c", NEW_SESSION),

    "setsid_fork": prefix(DAEMON, "setsid", "-f", in_reach=False),
    # As daemon(3) does it, and so ssh -f, haproxy -D and danted -D.
    "double_fork": prefix(DAEMON, "python3", "-c", DAEMONISE, in_reach=False),
    "sh_in_the_background": line(DAEMON, "sh", "-c", form="{} &"),
    "start_stop_daemon_background": Wrapper(DAEMON, start_stop_daemon("-b"), in_reach=False),
}

# Has the host's session control the terminal of this name, then runs the host.
TAKE_TERMINAL = "import os, sys; os.open(sys.argv[1], os.O_RDWR); os.execv(sys.argv[2], sys.argv[2:])"


class Run:
    """One wrapper's scene: what it did, to be judged by the test."""

    def __init__(self, test, wrapper, scene, is_deaf):
        self.test = test
        self.wrapper = wrapper
        self.scene = scene
        self.is_deaf = is_deaf
        mode = ("deaf",) if is_deaf else ("serve",)
        # A proxy in the background must not be found before its wrapper has ended.
        if wrapper.group == DAEMON:
            mode = ("late", "5000")
        self.command = wrapper.command(Proxy(scene, mode))

    def check_possible(self):
        if self.wrapper.needs_root:
            scenes.need_root()
        scenes.need_program(self.command[0])
        if self.wrapper.trial:
            done = subprocess.run([*self.wrapper.trial, "true"], check=False,
                                  stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if done.returncode != 0:
                scenes.left_out(f"where {self.command[0]} is refused what it needs")

    def start(self, terminal):
        stage = (sys.executable, "-c", TAKE_TERMINAL, terminal) if terminal else ()
        options = [f"grace={GRACE_MS}", *self.wrapper.options]
        self.host = self.scene.host(options, self.command, stage)

    def run(self, origin):
        self.check_possible()
        master, slave = pty.openpty() if self.wrapper.on_terminal else (-1, -1)
        try:
            self.start(os.ttyname(slave) if slave >= 0 else None)
            if self.wrapper.group == DAEMON:
                self.check_that_it_exited()
            else:
                self.check_life(origin)
        finally:
            for fd in (master, slave):
                if fd >= 0:
                    os.close(fd)

    def check_that_it_exited(self):
        self.test.assertEqual(self.host.result, "KP_ERR_EXITED", self.host.message)
        self.test.assertIn("a proxy must stay in the foreground", self.host.message)
        self.host.free()
        self.test.assertEqual(self.host.told["children"], "none")
        if self.wrapper.in_reach:
            self.test.assertEqual(self.left(), [])

    def check_life(self, origin):
        words = f"{self.host.message} {self.scene.read_log()}"
        self.test.assertEqual(self.host.result, "KP_OK", words)
        self.check_group()
        answer = scenes.answer_through(self.host.port, origin)
        self.test.assertRegex(answer, rb"\AHTTP/1\.. 200")
        self.test.assertTrue(answer.endswith(origin.word), answer)
        self.check_end()

    def check_group(self):
        owners = self.scene.owners(self.host.port)
        self.test.assertEqual(len(owners), 1)
        stays = scenes.group_of(owners[0]) == self.host.group
        self.test.assertEqual(stays, self.wrapper.group == STAYS, "does its listener leave the group?")

    def check_end(self):
        took = self.host.free()
        if self.wrapper.group == STAYS:
            self.test.assertEqual(self.left(), [])
        # What stands between the wrapper and the proxy in another session is not the library's to
        # wait for: it ends by itself once its child has.
        scenes.wait_until(lambda: not self.scene.marked(), f"the end of {self.left()}")
        self.test.assertEqual(self.host.told["children"], "none")
        self.test.assertFalse(scenes.listens(self.host.port))
        self.test.assertLess(took, FREE_WITHIN_S)
        if self.is_deaf and not self.wrapper.impatient:
            self.test.assertGreaterEqual(took, GRACE_MS / 1000)

    def left(self):
        return [(pid, scenes.read_bytes(f"/proc/{pid}/cmdline")) for pid in self.scene.marked()]


class Wrappers(scenes.Beside):
    @classmethod
    def setUpClass(cls):
        cls.origin = scenes.Origin()
        cls.addClassCleanup(cls.origin.close)
        super().setUpClass()


def function_of(wrapper, is_deaf=False):
    def run(test, scene):
        scene.environment["HOME"] = scene.folder
        Run(test, wrapper, scene, is_deaf).run(test.origin)

    return run


def functions():
    for name, wrapper in WRAPPERS.items():
        yield name, function_of(wrapper)
        if wrapper.group != DAEMON:
            yield f"{name}_before_a_deaf_proxy", function_of(wrapper, is_deaf=True)


Wrappers.add(dict(functions()))


if __name__ == "__main__":
    unittest.main()
