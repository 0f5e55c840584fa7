# SPDX-License-Identifier: Apache-2.0
"""Whose listener it is. The proxy's own is never refused, however strange its owner and
however little /proc tells; another's always is, where it can be known.

Each test is one host (host.c) and one proxy command (strange.c). The "opener" is a daemon that
the test has started before: it listens on the port when the proxy command asks, as `docker run
-p` and systemd-run have it done.
"""

import contextlib
import errno
import os
import re
import resource
import socket
import struct
import subprocess
import unittest

import scene as scenes

# Users that nobody has.
USER, OTHER, THIRD = 64101, 64102, 64103
ROOT = 0
MPTCP = 262

MANY = str(min(20000, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 100))
TOO_MANY = 250000 // int(MANY) + 1  # processes of which each has so many
CROWD = "1000"
BYSTANDERS = 3000
ANSWERS_WITHIN_S = 10.0  # a second or two, and what a busy machine adds
FREE_WITHIN_S = 6.0
GRACE_S = 0.3  # that host.c gives


# ---- Where the host stands -----------------------------------------------------------------


def as_user(uid):
    """Root stays root; without root all is done as who we are."""
    if uid == ROOT or not scenes.IS_ROOT:
        return []
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]


def after(script):
    """In a mount namespace of its own, in which the script has changed something."""
    return ["unshare", "--mount", "sh", "-c", f'{script} && exec "$@"', "sh"]


def hidepid(level):
    return after(f"mount -t proc -o hidepid={level} proc /proc && grep -q hidepid= /proc/self/mountinfo")


NO_PROC = after("mount -t tmpfs none /proc")
# Numbers in this /proc are those of the namespace outside.
OLD_PROC = ["unshare", "--pid", "--fork", "--kill-child", "sh", "-c", '"$@"; exit $?', "sh"]
VIEWS = {
    "hidepid_1": hidepid(1),
    "hidepid_2": hidepid(2),
    "hidepid_4": hidepid(4),
    "subset_of_proc": after("mount -t proc -o subset=pid proc /proc"),
    "no_proc": NO_PROC,
    "old_proc": OLD_PROC,
}


def succeeds(command):
    return subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == 0


def need_view(view):
    if not view:
        return
    scenes.need_root()
    if not succeeds([*view, "true"]):
        scenes.left_out(f"where this is refused: {' '.join(view)}")


# ---- The proxy's own -----------------------------------------------------------------------


def setuid_strange(scene):
    """The program, which another user than root becomes root by."""
    scenes.need_root()
    if os.statvfs(scene.folder).f_flag & os.ST_NOSUID:
        scenes.left_out("where no program is setuid")
    return scene.install("KP_STRANGE", 0o4755, "setuid-proxy")


def need_steps(steps):
    """What a kernel or a container may not have."""
    if "mptcp" in steps:
        try:
            socket.socket(socket.AF_INET, socket.SOCK_STREAM, MPTCP).close()
        except OSError:
            scenes.left_out("without MPTCP")
    if "userns" in steps and not succeeds([*as_user(USER), "unshare", "--user", "true"]):
        scenes.left_out("without user namespaces")


def own(*steps):
    def command(scene):
        need_steps(steps)
        return [scene.strange, *steps]

    return command


def setuid(*steps):
    return lambda scene: [setuid_strange(scene), *steps]


def setuid_below_a_shell(*steps):
    return lambda scene: ["sh", "-c", f"{setuid_strange(scene)} {' '.join(steps)}; exit $?"]


def below_sudo(scene):
    """As a shell that runs sudo on a terminal: a process of root's in between has the program in a
    session of its own, as the host's own user."""
    steps = ["worker", "session", "become", str(USER), "exec", scene.strange, "listen", "127.0.0.1"]
    return setuid_below_a_shell(*steps)(scene)


OWN = {
    "serving": own("listen", "127.0.0.1"),
    "on_any_address": own("listen", "0.0.0.0"),
    "on_any_address_of_both_families": own("listen", "::"),
    "on_a_mapped_address": own("listen", "::ffff:127.0.0.1"),
    "in_a_worker": own("worker", "listen", "127.0.0.1"),
    "in_a_worker_of_a_worker": own("worker", "worker", "listen", "127.0.0.1"),
    "in_workers_with_sockets_of_their_own": own("reuseport", "workers", "3"),
    "executing_itself": own("reexec", "300"),
    "of_mptcp": own("mptcp", "listen", "127.0.0.1"),
    "without_a_main_thread": own("no-main", "listen", "127.0.0.1"),
    "in_a_worker_without_a_main_thread": own("worker", "no-main", "listen", "127.0.0.1"),
    "undumpable": own("undumpable", "listen", "127.0.0.1"),
    "undumpable_without_a_main_thread": own("undumpable", "no-main", "listen", "127.0.0.1"),
    "in_an_undumpable_worker": own("worker", "undumpable", "listen", "127.0.0.1"),
    "in_a_user_namespace": own("userns", "listen", "127.0.0.1"),
    "with_a_zombie": own("zombie", "listen", "127.0.0.1"),
    "of_another_user": setuid("become", str(THIRD), "listen", "127.0.0.1"),
    "of_another_user_below_a_shell": setuid_below_a_shell(
        "become", str(THIRD), "listen", "127.0.0.1"),
    "of_another_user_outside_the_group": setuid(
        "session", "become", str(THIRD), "listen", "127.0.0.1"),
    # The socket is root's, and nobody of the proxy's is any more.
    "of_another_user_who_was_root": setuid(
        "bind", "127.0.0.1", "become", str(THIRD), "serve"),
    "below_sudo": below_sudo,
    "setuid": setuid("listen", "127.0.0.1"),
    "setuid_below_a_shell": setuid_below_a_shell("listen", "127.0.0.1"),
}

MANY_OF_ITS_OWN = {
    "with_many_descriptors": own("descriptors", MANY, "listen", "127.0.0.1"),
    # The one that serves is the first of them in /proc, and the last.
    "before_many_processes": own("crowd", CROWD, "listen", "127.0.0.1"),
    "after_many_processes": own("crowd", CROWD, "worker", "listen", "127.0.0.1"),
}

# What is worth a look where little can be seen.
OWN_IN_A_VIEW = (
    "serving", "in_a_worker", "undumpable", "without_a_main_thread", "of_another_user",
    "of_another_user_below_a_shell", "setuid", "in_workers_with_sockets_of_their_own",
)
# An owner outside of the group is found for the stop although its parent is hidden.
HIDEPID = ("hidepid_1", "hidepid_2", "hidepid_4")
# Whose an unreadable process is, /proc/PID/status has to tell.
OLD_KERNELS = {
    "before_6_13": [f"no-info={errno.ENOTTY}"],
    "before_5_3": [f"no-info={errno.ENOTTY}", f"no-pidfd={errno.ENOSYS}"],
}
OWN_ON_OLD_KERNELS = {
    ROOT: ("serving", "without_a_main_thread", "of_another_user"),
    USER: ("serving", "undumpable", "in_an_undumpable_worker", "without_a_main_thread"),
}
OWN_WITHOUT_NETLINK = ("serving", "in_a_worker", "on_any_address_of_both_families")


def is_ready(name, uid, view=(), options=(), becomes=False):
    """The test that a proxy of the table above gets READY, and ends. The host may have been root
    when the kernel was told what to refuse, and have become the user then."""

    def play(test, scene):
        if uid == ROOT or becomes:
            scenes.need_root()
        need_view(view)
        command = (OWN | MANY_OF_ITS_OWN)[name](scene)
        become = [f"become={uid}"] if becomes else []
        host = scene.host([*options, *become], command, [*view, *as_user(ROOT if becomes else uid)])
        test.assertEqual(host.result, "KP_OK", f"{host.message} {scene.read_log()}")
        test.assertLess(host.took, ANSWERS_WITHIN_S)
        test.assertLess(host.free(), FREE_WITHIN_S)
        # A user can't end what another user has become: it was given up.
        if uid == ROOT or not name.startswith("of_another_user"):
            test.assertEqual(scene.marked(), [])
            test.assertEqual(host.told["children"], "none")

    return play


def is_unseen(name, uid, view=(), options=(), becomes=False):
    """The test of a proxy that has become a user whom nobody can be seen to be: it is refused by
    that, and accepted with KP_SPEC_ANY_LISTENER."""

    def play(test, scene):
        scenes.need_root()
        need_view(view)
        become = [f"become={uid}"] if becomes else []
        stage = [*view, *as_user(ROOT if becomes else uid)]
        command = OWN[name](scene)
        for more, result in (((), "KP_ERR_FOREIGN_LISTENER"), (("any",), "KP_OK")):
            host = scene.host([*more, *options, *become], command, stage)
            test.assertEqual(host.result, result, f"{host.message} {scene.read_log()}")
            if not more:
                test.assertIn(f"a process of uid {THIRD} listens there; KP_SPEC_ANY_LISTENER", host.message)
            test.assertLess(host.free(), FREE_WITHIN_S)
            scene.end_strays() # a user can't end what another user has become

    return play


HIDING = {ROOT: ("no_proc", "old_proc"), USER: ("hidepid_2", "hidepid_4", "no_proc", "old_proc")}


def own_tests():
    for who, uid in (("root", ROOT), ("user", USER)):
        for name in OWN:
            yield f"{name}_of_{who}", is_ready(name, uid)
        for name in OWN_IN_A_VIEW:
            for view, stage in VIEWS.items():
                if name == "of_another_user_below_a_shell" and view in HIDING[uid]:
                    yield f"{name}_of_{who}_with_{view}", is_unseen(name, uid, stage)
                else:
                    yield f"{name}_of_{who}_with_{view}", is_ready(name, uid, stage)
        for view in HIDEPID:
            yield f"below_sudo_of_{who}_with_{view}", is_ready("below_sudo", uid, VIEWS[view])
        for name in OWN_WITHOUT_NETLINK:
            for number in (errno.EPERM, errno.EAFNOSUPPORT):
                label = f"{name}_of_{who}_without_netlink_{errno.errorcode[number]}"
                yield label, is_ready(name, uid, options=[f"no-netlink={number}"])


def own_on_old_kernels_tests():
    # A member of the group that can be neither ended nor, where that is hidden, read.
    for view, stage in {"all_seen": (), "hidepid_1": VIEWS["hidepid_1"]}.items():
        for name in ("of_another_user_below_a_shell", "of_another_user_outside_the_group"):
            if view == "hidepid_1":
                check = is_unseen(name, USER, stage, OLD_KERNELS["before_5_3"], becomes=True)
            else:
                check = is_ready(name, USER, stage, OLD_KERNELS["before_5_3"], becomes=True)
            yield f"{name}_of_user_with_{view}_before_5_3", check
    for kernel, options in OLD_KERNELS.items():
        yield f"workers_in_a_session_{kernel}", workers_in_a_session(options)
        yield f"deaf_without_a_main_thread_{kernel}", deaf_without_a_main_thread(kernel)
    for who, uid in (("root", ROOT), ("user", USER)):
        for name in OWN_ON_OLD_KERNELS[uid]:
            for kernel, options in OLD_KERNELS.items():
                yield f"{name}_of_{who}_{kernel}", is_ready(name, uid, options=options)


def workers_in_a_session(options=()):
    """The test of three owners, each of one listener and none in the proxy's group. One is the
    outsider, and the rest is stopped with the group that it is in, where the kernel can (Linux
    6.9)."""

    def play(test, scene):
        steps = ["worker", "session", "reuseport", "workers", "3"]
        host = scene.host(["hold", *options], [scene.strange, *steps], as_user(USER))
        scenes.wait_until(lambda: len(scene.owners(host.port)) == 3, "all of them listen")
        host.go_on()
        test.assertEqual(host.result, "KP_OK", host.message)
        test.assertLess(host.free(), FREE_WITHIN_S)
        if signals_groups() and not options:
            test.assertEqual(scene.marked(), [])

    return play


def relayed(test, scene):
    """An owner outside of the group that ends when it is asked for HTTP, and another one after it:
    that is the one to be stopped."""
    steps = ["worker", "session", "relay"]
    host = scene.host(["http"], [scene.strange, *steps], as_user(USER))
    test.assertEqual(host.result, "KP_OK", host.message)
    test.assertLess(host.free(), FREE_WITHIN_S)
    test.assertEqual(scene.marked(), [])


def signals_groups():
    major, minor = re.match(r"(\d+)\.(\d+)", os.uname().release).groups()
    return (int(major), int(minor)) >= (6, 9)


def deaf_without_a_main_thread(kernel):
    """The test of a worker that looks like a zombie, and has the whole grace all the same."""

    def play(test, scene):
        steps = ["worker", "deaf", "no-main", "listen", "127.0.0.1"]
        host = scene.host(OLD_KERNELS[kernel], [scene.strange, *steps], as_user(USER))
        test.assertEqual(host.result, "KP_OK", host.message)
        took = host.free()
        test.assertGreaterEqual(took, GRACE_S)
        test.assertLess(took, FREE_WITHIN_S)
        test.assertEqual(scene.marked(), [])

    return play


# ---- Another's -----------------------------------------------------------------------------


class Opener:
    def __init__(self, scene, uid, *steps, address="127.0.0.1"):
        if uid == OTHER:
            scenes.need_root()
        self.uid = uid if scenes.IS_ROOT else os.getuid()
        folder = scene.path("opener")
        os.mkdir(folder)
        os.chmod(folder, 0o777)
        self.path = os.path.join(folder, "socket")
        command = [*as_user(uid), scene.strange, *steps, "open", self.path, address]
        self.process = subprocess.Popen(command, env=scene.environment, stderr=scene.log)
        scenes.wait_until(self.answers, "the opener starts")

    @contextlib.contextmanager
    def connection(self):
        with socket.socket(socket.AF_UNIX) as door:
            door.settimeout(scenes.PATIENCE)
            door.connect(self.path)
            yield door

    def answers(self):
        try:
            with self.connection():
                return True
        except (FileNotFoundError, ConnectionRefusedError, PermissionError):
            return False

    def listen(self, port):
        with self.connection() as door:
            door.sendall(struct.pack("=H", port))
            if door.recv(1) != b"\0":
                raise AssertionError("the opener could not listen")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def check_refused(test, host, opener=None):
    """The search for a name has a bound: one that it did not find is told as a uid."""
    test.assertEqual(host.result, "KP_ERR_FOREIGN_LISTENER", host.message)
    test.assertLess(host.took, ANSWERS_WITHIN_S)
    test.assertIn("KP_SPEC_ANY_LISTENER", host.message)
    if opener is not None:
        test.assertRegex(host.message, rf"{name_of(opener)}|a process of uid {opener.uid}\b")


def name_of(opener):
    return rf"\bprocess {opener.process.pid} \(strange-proxy\)"


def check_that_opener_alone_lives(test, scene, host, opener):
    test.assertLess(host.free(), FREE_WITHIN_S)
    test.assertIsNone(opener.process.poll())
    test.assertEqual(scene.marked(), [opener.process.pid])
    test.assertEqual(host.told["children"], "none")


def check_accepted(test, host, opener=None):
    test.assertEqual(host.result, "KP_OK", host.message)


def check_timed_out(test, host, opener=None):
    test.assertEqual(host.result, "KP_ERR_TIMED_OUT", host.message)
    test.assertLess(host.took, ANSWERS_WITHIN_S)


def opened(steps, host_uid, uid, options=(), verdict=check_refused, opener_steps=(),
           address="127.0.0.1", view=()):
    """The test of a proxy command that has the opener listen."""

    def play(test, scene):
        if host_uid == ROOT:
            scenes.need_root()
        need_view(view)
        need_steps([*steps, *opener_steps])
        with Opener(scene, uid, *opener_steps, address=address) as opener:
            command = [scene.strange, *steps, "ask", opener.path]
            host = scene.host(options, command, [*view, *as_user(host_uid)])
            verdict(test, host, opener)
            check_that_opener_alone_lives(test, scene, host, opener)

    return play


def is_told(host_uid, uid):
    """The test of what the message calls the opener, in as many tries as a busy machine needs."""

    def play(test, scene):
        if host_uid == ROOT:
            scenes.need_root()
        with Opener(scene, uid) as opener:
            seen = host_uid == ROOT or host_uid == uid or not scenes.IS_ROOT
            wanted = name_of(opener) if seen else rf"a process of uid {opener.uid}\b"
            for _ in range(20):
                host = scene.host([], [scene.strange, "ask", opener.path], as_user(host_uid))
                check_refused(test, host, opener)
                if re.search(wanted, host.message):
                    return
            test.fail(f"{wanted} was never told: {host.message}")

    return play


def joined(address, proxy_address, verdict, *opener_steps, uid=USER):
    """The test of a proxy that serves, and of an opener that has joined it before the host looks."""

    def play(test, scene):
        with Opener(scene, uid, *opener_steps, address=address) as opener:
            command = [scene.strange, "reuseport", "listen", proxy_address]
            host = scene.host(["hold"], command, as_user(USER))
            scenes.wait_until(lambda: scene.owners(host.port), "the proxy listens")
            opener.listen(host.port)
            host.go_on()
            verdict(test, host, opener)
            check_that_opener_alone_lives(test, scene, host, opener)

    return play


def opened_among_bystanders(host_uid, count, *steps):
    """The test of an opener on a machine on which much else runs."""

    def play(test, scene):
        if host_uid == ROOT:
            scenes.need_root()
        scene.start_bystanders(count, *steps)
        with Opener(scene, host_uid) as opener:
            host = scene.host([], [scene.strange, "ask", opener.path], as_user(host_uid))
            check_refused(test, host, opener)
            check_that_opener_alone_lives(test, scene, host, opener)

    return play


def daemon_of_its_own(test, scene):
    """It has left the group and lost its parent: nothing shows that it is the proxy's."""
    host = scene.host([], [scene.strange, "daemon", "listen", "127.0.0.1"], as_user(USER))
    check_refused(test, host)
    test.assertLess(host.free(), FREE_WITHIN_S)


def never_binding(*steps):
    def play(test, scene):
        host = scene.host(["timeout=1500"], [scene.strange, *steps, "never"], as_user(USER))
        check_timed_out(test, host)
        test.assertLess(host.free(), FREE_WITHIN_S)
        test.assertEqual(scene.marked(), [])

    return play


def opened_tests():
    for who, host_uid in (("root", ROOT), ("user", USER)):
        for whose, uid in (("the_same_user", host_uid), ("another_user", OTHER)):
            label = f"by_{whose}_for_{who}"
            yield f"opened_{label}", opened((), host_uid, uid)
            yield f"told_when_opened_{label}", is_told(host_uid, uid)
            yield f"wanted_when_opened_{label}", opened((), host_uid, uid, ["any"], check_accepted)
            for name, address in (("any_address", "0.0.0.0"), ("both_families", "::"),
                                  ("a_mapped_address", "::ffff:127.0.0.1")):
                yield f"opened_on_{name}_{label}", opened((), host_uid, uid, address=address)
            yield f"opened_with_mptcp_{label}", opened((), host_uid, uid, opener_steps=["mptcp"])
        for name, steps in (("worker", ["worker"]), ("proxy_with_a_zombie", ["zombie"]),
                            ("proxy_without_a_main_thread", ["no-main"]),
                            ("proxy_in_a_user_namespace", ["userns"])):
            yield f"opened_for_a_{name}_of_{who}", opened(steps, host_uid, host_uid)


# Where /proc is not this one's own, or hides processes from this user, the user alone is known.
UNKNOWN_TO_ROOT = ("no_proc", "old_proc")
UNKNOWN_TO_USER = ("hidepid_2", "hidepid_4", *UNKNOWN_TO_ROOT)


def view_tests():
    for who, uid, unknown in (("root", ROOT, UNKNOWN_TO_ROOT), ("user", USER, UNKNOWN_TO_USER)):
        for name, view in VIEWS.items():
            verdict = check_accepted if name in unknown else check_refused
            yield f"opened_for_{who}_with_{name}", opened((), uid, uid, verdict=verdict, view=view)
            yield (f"opened_by_another_user_for_{who}_with_{name}",
                   opened((), uid, OTHER, view=view))
    for who, uid in (("root", ROOT), ("user", USER)):
        for number in (errno.EPERM, errno.EAFNOSUPPORT):
            label = f"for_{who}_without_netlink_{errno.errorcode[number]}"
            refused = [f"no-netlink={number}"]
            yield f"opened_{label}", opened((), uid, uid, refused)
            yield f"opened_by_another_user_{label}", opened((), uid, OTHER, refused)
            yield f"own_untold_{label}", own_untold(uid, refused)


def own_untold(uid, options):
    """The test of a host that is told nothing of who listens: its proxy gets READY only if whoever
    listens is accepted."""

    def play(test, scene):
        need_view(NO_PROC)
        start = [*NO_PROC, *as_user(uid)]
        host = scene.host(options, [scene.strange, "listen", "127.0.0.1"], start)
        test.assertEqual(host.result, "KP_ERR_FOREIGN_LISTENER", host.message)
        test.assertIn("the host is not told who", host.message)
        test.assertIn("KP_SPEC_ANY_LISTENER accepts it", host.message)
        test.assertLess(host.free(), FREE_WITHIN_S)
        test.assertEqual(scene.marked(), [])
        host = scene.host(["any", *options], [scene.strange, "listen", "127.0.0.1"], start)
        test.assertEqual(host.result, "KP_OK", host.message)
        test.assertLess(host.free(), FREE_WITHIN_S)

    return play


OTHERS = {
    **dict(opened_tests()),
    **dict(view_tests()),
    # Unreadable, but not of the listener's user.
    "opened_for_an_undumpable_proxy": opened(["undumpable"], USER, OTHER),
    **{f"opened_for_an_undumpable_proxy_{kernel}": opened(["undumpable"], USER, OTHER, options)
       for kernel, options in OLD_KERNELS.items()},
    # Unreadable, and of the listener's user: that is accepted.
    "opened_for_an_undumpable_proxy_by_its_own_user": opened(
        ["undumpable"], USER, USER, verdict=check_accepted),
    # Unreadable, and neither root's nor ever root's: it can't be root's listener.
    "opened_for_an_undumpable_proxy_by_root": opened(["undumpable"], USER, ROOT),
    "joined_with_reuseport": joined("127.0.0.1", "127.0.0.1", check_refused, "reuseport"),
    "joined_on_the_address_proper": joined("127.0.0.1", "0.0.0.0", check_refused, "reuseport"),
    "joined_on_any_address": joined("0.0.0.0", "127.0.0.1", check_refused, "reuseport"),
    "beside_it_on_the_other_loopback": joined("::1", "127.0.0.1", check_accepted),
    "beside_it_on_the_other_loopback_by_another_user": joined(
        "::1", "127.0.0.1", check_accepted, uid=OTHER),
    "beside_it_on_any_address_of_the_other_family": joined(
        "::", "127.0.0.1", check_accepted, "v6only"),
    "beside_it_on_another_address": joined("127.0.0.2", "127.0.0.1", check_accepted),
    "daemon_of_its_own": daemon_of_its_own,
}


# ---- Every search ends ---------------------------------------------------------------------

CROWDS = {
    "own_beside_many_descriptors_of_root": is_ready("with_many_descriptors", ROOT),
    "own_beside_many_descriptors": is_ready("with_many_descriptors", USER),
    "own_before_many_processes": is_ready("before_many_processes", USER),
    "own_after_many_processes": is_ready("after_many_processes", USER),
    "opened_for_many_descriptors_of_root": opened(["descriptors", MANY], ROOT, ROOT),
    "opened_for_many_descriptors": opened(["descriptors", MANY], USER, USER),
    "opened_for_many_processes_of_root": opened(
        ["crowd", CROWD, "descriptors", MANY], ROOT, ROOT),
    "opened_for_many_processes": opened(["crowd", CROWD, "descriptors", MANY], USER, USER),
    "opened_for_many_processes_by_another_user": opened(
        ["crowd", CROWD, "descriptors", MANY], USER, OTHER),
    # More than one search looks at: one of the host's own user is accepted.
    "opened_for_too_many_descriptors": opened(
        ["descriptors", MANY, "crowd", str(TOO_MANY)], USER, USER,
        verdict=check_accepted),
    "opened_among_many_bystanders_for_root": opened_among_bystanders(ROOT, BYSTANDERS),
    "opened_among_many_bystanders": opened_among_bystanders(USER, BYSTANDERS),
    # More than the search for a name looks at.
    "opened_among_too_many_descriptors": opened_among_bystanders(
        ROOT, TOO_MANY, "descriptors", MANY),
    "never_binding": never_binding("crowd", CROWD, "descriptors", MANY),
    "never_binding_with_too_many_descriptors": never_binding(
        "descriptors", MANY, "crowd", str(TOO_MANY)),
    # Any of them might be what it listens on instead.
    "never_binding_with_many_sockets": never_binding("crowd", "3", "sockets", "300"),
    "never_binding_with_many_sockets_in_a_worker": never_binding("worker", "sockets", "300"),
}


class Own(scenes.Beside):
    pass


class Others(scenes.Beside):
    pass


class Searches(scenes.Beside):
    at_once = 1  # they need the machine


Own.add(dict(own_tests()) | dict(own_on_old_kernels_tests()) | {
    "relayed": relayed,
    "workers_in_a_session": workers_in_a_session(),
})
Others.add(OTHERS)
Searches.add(CROWDS)


if __name__ == "__main__":
    unittest.main()
