# SPDX-License-Identifier: Apache-2.0
"""What can go wrong."""

from __future__ import annotations

import enum
from typing import Optional

from . import _ffi


class Code(enum.IntEnum):
    """The library's numbers for what went wrong; they never change their meaning."""

    INVALID = -1
    NO_MEMORY = -2
    SYSTEM = -3
    PORT_IN_USE = -4
    SPAWN = -5
    GUARD = -6
    EXITED = -7
    TIMED_OUT = -8
    FOREIGN_LISTENER = -9
    NOT_HTTP = -10
    STATE = -11
    FORKED = -12


class Error(Exception):
    """Something about a proxy failed; nothing of it was left behind by a failed start.

    The subclasses are for the codes that callers tell apart.
    """

    code: int = Code.SYSTEM
    """A `Code`, or a number that only a newer library knows."""
    message: str
    """One line for a person."""
    errno: Optional[int]
    """Of the system call that failed, if one did."""
    exit_code: Optional[int]
    """The proxy's exit status; None: it did not exit, was killed, or nobody knows."""
    term_signal: Optional[int]
    """The signal that killed the proxy."""
    output: str
    """The last lines that the proxy printed, where `log` is a regular file; else ""."""

    # Only `message` is positional: so pickle and copy can make the object anew.
    def __init__(
        self,
        message: str,
        *,
        code: Optional[int] = None,
        errno: Optional[int] = None,
        exit_code: Optional[int] = None,
        term_signal: Optional[int] = None,
        output: str = "",
    ) -> None:
        super().__init__(message)
        self.code = type(self).code if code is None else code
        self.message = message
        self.errno = errno
        self.exit_code = exit_code
        self.term_signal = term_signal
        self.output = output


class InvalidError(Error, ValueError):
    """An argument is wrong; nothing was started."""

    code = Code.INVALID


class PortInUseError(Error):
    """The port that was asked for is in use; nothing was started."""

    code = Code.PORT_IN_USE


class SpawnError(Error):
    """The program could not be executed: see `errno`."""

    code = Code.SPAWN


class GuardError(Error):
    """The guard, a /bin/sh, could not be started or has ended; `guard=False` does without."""

    code = Code.GUARD


class ExitedError(Error):
    """The proxy exited before it was ready: `exit_code`, `term_signal` and `output`."""

    code = Code.EXITED


class TimedOutError(Error):
    """The proxy runs but did not bind in time; of `attach()`: nobody answered."""

    code = Code.TIMED_OUT


class ForeignListenerError(Error):
    """Something else listens on the port; `any_listener=True` accepts it."""

    code = Code.FOREIGN_LISTENER


class NotHttpError(Error):
    """`probe_http=True`: what listens is not an HTTP proxy, or did not answer in time."""

    code = Code.NOT_HTTP


class StateError(Error):
    """Not possible in the proxy's present state, for example after `close()`."""

    code = Code.STATE


class ForkedError(Error):
    """The proxy belongs to the process that this one was forked from."""

    code = Code.FORKED


_CLASSES: dict[int, type[Error]] = {
    int(each.code): each
    for each in (
        InvalidError,
        PortInUseError,
        SpawnError,
        GuardError,
        ExitedError,
        TimedOutError,
        ForeignListenerError,
        NotHttpError,
        StateError,
        ForkedError,
    )
}


def _code(result: int) -> int:
    try:
        return Code(result)
    except ValueError:
        return result


# Messages quote paths, and outputs are the proxy's: either may hold bytes that are no
# UTF-8, or be cut in the middle of a character, and has to remain printable.
def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def from_struct(error: _ffi.ErrorStruct) -> Error:
    """The exception for a kp_error that the library has written."""
    return _CLASSES.get(error.code, Error)(
        _text(error.message),
        code=_code(error.code),
        errno=error.sys_errno or None,
        exit_code=None if error.exit_code < 0 else error.exit_code,
        term_signal=error.term_signal or None,
        output=_text(error.output),
    )


def from_result(result: int, doing: str) -> Error:
    """The exception for a call that tells no more than its result."""
    name = _ffi.lib.kp_result_name(result).decode("ascii")
    return _CLASSES.get(result, Error)(f"{doing}: {name}", code=_code(result))
