# SPDX-License-Identifier: Apache-2.0
"""What /proc says about processes and about who owns a listener."""

import ctypes
import os
import re
import typing

PR_SET_CHILD_SUBREAPER = 36
LISTEN = "0A"
THREADS = 16  # how many numbers of /proc/PID/stat stand between its state and num_threads
# The local addresses, as /proc/net has them, that take a connection to 127.0.0.1.
TAKES_LOOPBACK = {
    "".join(reversed([f"{part:02X}" for part in address]))
    for address in ((127, 0, 0, 1), (0, 0, 0, 0))
}
TAKES_LOOPBACK |= {"0" * 32} | {f"{'0' * 16}FFFF0000{each}" for each in TAKES_LOOPBACK}


def adopt_orphans():
    """From now on this process is the parent of what its descendants leave behind."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


class Process(typing.NamedTuple):
    parent: int
    group: int
    session: int


def look(pid):
    """A process that has not ended; None: it has."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            state, *numbers = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The main thread ends first: while others end, what they share (a listener) is still there.
    over = state == "X" or (state == "Z" and int(numbers[THREADS]) <= 1)
    return None if over else Process(*map(int, numbers[:3]))


def every_process():
    """{pid: Process}"""
    found = {int(name): look(name) for name in os.listdir("/proc") if name.isdigit()}
    return {pid: process for pid, process in found.items() if process is not None}


def children(pid):
    return [each for each, process in every_process().items() if process.parent == pid]


def descendants(pid, without_sessions=()):
    """{pid: Process}, the nearest first; what is in one of the sessions is left out."""
    every = every_process()
    found = {}
    parents = [pid]
    for parent in parents:
        for each, process in every.items():
            if process.parent == parent and process.session not in without_sessions:
                found[each] = process
                parents.append(each)
    return found


def listener_inodes(port):
    inodes = set()
    for table in ("tcp", "tcp6"):
        with open(f"/proc/net/{table}", encoding="ascii") as file:
            for line in list(file)[1:]:
                _number, local, _remote, state, *rest = line.split()
                address, _, its_port = local.partition(":")
                if state == LISTEN and int(its_port, 16) == port and address in TAKES_LOOPBACK:
                    inodes.add(int(rest[5]))
    return inodes


def sockets(pid):
    """The inodes of its sockets; None: it can't be looked at, or has ended."""
    try:
        targets = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return None
    return {int(found[1]) for found in map(re.compile(r"socket:\[(\d+)\]").match, targets) if found}


def owners(port, pids):
    """Those of the processes that hold a listener of the port."""
    inodes = listener_inodes(port)
    return [pid for pid in pids if inodes & (sockets(pid) or set())]
