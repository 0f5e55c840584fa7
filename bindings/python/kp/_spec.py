# SPDX-License-Identifier: Apache-2.0
"""What to run and how: from Python's values to kp_spec."""

from __future__ import annotations

import ctypes
import operator
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Optional, Protocol, Union

from . import _ffi
from ._environment import encode, entries
from ._errors import InvalidError

Path = Union[str, "os.PathLike[str]"]

_UINT32_MAX = 2**32 - 1
_INT_MAX = 2**31 - 1


class HasFileno(Protocol):
    """A file, a socket, one end of a pipe."""

    def fileno(self) -> int:
        """The number of its descriptor."""


def _milliseconds(seconds: float, what: str, most: int) -> int:
    """Rounded up: what is asked for is granted, and only 0 is no time at all."""
    # By way of whole nanoseconds, or 1.1 would become 1101 ms.
    if not 0 <= seconds <= most / 1000:
        raise InvalidError(f"{what} must be between 0 and {most // 1000} seconds, not {seconds}")
    return -(-round(seconds * 1_000_000_000) // 1_000_000)


def _duration(seconds: Optional[float], what: str) -> int:
    """A duration of kp_spec, where zero would mean the default."""
    return 0 if seconds is None else max(1, _milliseconds(seconds, what, _UINT32_MAX))


def grace_ms(seconds: Optional[float]) -> int:
    """The argument of kp_handle_stop(): -1 is the spec's grace, and 0 really is none."""
    return -1 if seconds is None else _milliseconds(seconds, "grace", _INT_MAX)


def _optional(text: Optional[str], what: str) -> Optional[bytes]:
    return None if text is None else encode(text, what)


def _path(path: Optional[Path], what: str) -> Optional[bytes]:
    return None if path is None else encode(os.fspath(path), what)


def _port(port: Optional[int]) -> int:
    number = 0 if port is None else operator.index(port)
    # ctypes would quietly take it modulo 2**32.
    if not 0 <= number <= 65535:
        raise InvalidError(f"port must be between 1 and 65535, not {number}")
    return number


def _log_fd(log: Union[None, int, HasFileno]) -> int:
    if log is None:
        return 0
    fd = log if isinstance(log, int) else log.fileno()
    if fd == 0:
        raise InvalidError("log must not be descriptor 0, which means the default: os.dup() it")
    if not 0 < fd <= _INT_MAX:
        raise InvalidError(f"log must be a file or its descriptor, not {fd}")
    return fd


def _argv(command: Iterable[Path]) -> list[bytes]:
    # Their characters would become the arguments.
    if isinstance(command, (str, bytes)):
        raise TypeError("command must be a sequence of arguments, not one string")
    return [encode(os.fspath(argument), "command") for argument in command]


@dataclass(frozen=True)
class Spec:
    """The arguments of `spawn()`, or of `attach()`, as they were given."""

    command: Iterable[Path] = ()
    port: Optional[int] = None
    startup_timeout: Optional[float] = None
    stop_grace: Optional[float] = None
    env: Optional[Mapping[str, str]] = None
    clear_env: bool = False
    cwd: Optional[Path] = None
    log: Union[None, int, HasFileno] = None
    ca_bundle: Optional[Path] = None
    no_proxy: Optional[str] = None
    port_env: Optional[str] = None
    guard: bool = True
    reserve: bool = True
    probe_http: bool = False
    any_listener: bool = False
    attach: bool = False

    def _flags(self) -> int:
        return (
            (_ffi.SPEC_CLEAR_ENV if self.clear_env else 0)
            | (_ffi.SPEC_PROBE_HTTP if self.probe_http else 0)
            | (0 if self.guard else _ffi.SPEC_NO_GUARD)
            | (0 if self.reserve else _ffi.SPEC_NO_RESERVE)
            | (_ffi.SPEC_ANY_LISTENER if self.any_listener else 0)
            | (_ffi.SPEC_ATTACH if self.attach else 0)
        )

    def struct(self) -> _ffi.Spec:
        """The kp_spec; it keeps alive what it points to. Made when it is needed: the
        number of a log file is true only as long as that is open."""
        return _ffi.Spec(
            size=ctypes.sizeof(_ffi.Spec),
            argv=_ffi.strings(_argv(self.command)),
            env=_ffi.strings(entries(self.env or {}, "env")),
            cwd=_path(self.cwd, "cwd"),
            ca_bundle=_path(self.ca_bundle, "ca_bundle"),
            no_proxy=_optional(self.no_proxy, "no_proxy"),
            port_env=_optional(self.port_env, "port_env"),
            flags=self._flags(),
            startup_timeout_ms=_duration(self.startup_timeout, "startup_timeout"),
            stop_grace_ms=_duration(self.stop_grace, "stop_grace"),
            log_fd=_log_fd(self.log),
            port=_port(self.port),
        )
