# SPDX-License-Identifier: Apache-2.0
"""kp.h for ctypes: its structs, its functions, and the loading of the library."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from ._location import LIBRARY

SONAME = "libkp.so.0"

PORT_ENV = "KODA_PROXY_PORT"
"""The variable that tells the proxy its port, unless `port_env` names another."""

DEFAULT_NO_PROXY = "localhost,127.0.0.1,::1,[::1],169.254.0.0/16,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16"
"""What children reach without the proxy, unless `no_proxy` says otherwise."""

SPEC_CLEAR_ENV = 1 << 0
SPEC_PROBE_HTTP = 1 << 1
SPEC_NO_GUARD = 1 << 2
SPEC_NO_RESERVE = 1 << 3
SPEC_ANY_LISTENER = 1 << 4
SPEC_ATTACH = 1 << 5

Result = ctypes.c_int32
State = ctypes.c_int32
Pid = ctypes.c_int  # pid_t is an int on every system that the library knows
Strings = ctypes.POINTER(ctypes.c_char_p)


class Handle(ctypes.c_void_p):
    """A kp_handle *. A class of its own, so that ctypes does not turn it into an int."""


class Spec(ctypes.Structure):
    """kp_spec."""

    _fields_ = [
        ("size", ctypes.c_size_t),
        ("argv", Strings),
        ("env", Strings),
        ("cwd", ctypes.c_char_p),
        ("ca_bundle", ctypes.c_char_p),
        ("no_proxy", ctypes.c_char_p),
        ("port_env", ctypes.c_char_p),
        ("flags", ctypes.c_uint32),
        ("startup_timeout_ms", ctypes.c_uint32),
        ("stop_grace_ms", ctypes.c_uint32),
        ("log_fd", ctypes.c_int32),
        ("port", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
    ]


class ErrorStruct(ctypes.Structure):
    """kp_error."""

    _fields_ = [
        ("code", Result),
        ("sys_errno", ctypes.c_int32),
        ("exit_code", ctypes.c_int32),
        ("term_signal", ctypes.c_int32),
        ("message", ctypes.c_char * 480),
        ("output", ctypes.c_char * 1024),
        ("reserved", ctypes.c_uint32 * 4),
    ]


_spec_p = ctypes.POINTER(Spec)
_error_p = ctypes.POINTER(ErrorStruct)
_handle_p = ctypes.POINTER(Handle)
_int_p = ctypes.POINTER(ctypes.c_int)

# Every function of kp.h: what it returns, and what it takes. Without these ctypes would
# pass and return ints, and cut pointers to 32 bits.
FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "kp_spawn": (Result, [_spec_p, _handle_p, _error_p]),
    "kp_start": (Result, [_spec_p, _handle_p, _error_p]),
    "kp_handle_fd": (ctypes.c_int, [Handle]),
    "kp_handle_timeout_ns": (ctypes.c_int64, [Handle]),
    "kp_handle_step": (Result, [Handle, _error_p]),
    "kp_handle_wait": (Result, [Handle, State, ctypes.c_int, _error_p]),
    "kp_handle_state": (State, [Handle]),
    "kp_handle_port": (ctypes.c_uint16, [Handle]),
    "kp_handle_pid": (Pid, [Handle]),
    "kp_handle_url": (ctypes.c_char_p, [Handle]),
    "kp_handle_exit_status": (ctypes.c_int, [Handle, _int_p, _int_p]),
    "kp_handle_stop": (Result, [Handle, ctypes.c_int]),
    "kp_handle_restart": (Result, [Handle, _error_p]),
    "kp_handle_free": (None, [Handle]),
    "kp_handle_detach": (None, [Handle]),
    "kp_env_new": (Strings, [Handle, Strings]),
    "kp_env_free": (None, [Strings]),
    "kp_result_name": (ctypes.c_char_p, [Result]),
    "kp_version": (ctypes.c_char_p, []),
}

# These may wait, and let other threads run meanwhile. All others return at once and keep
# the interpreter's lock: it keeps two threads from being in one handle at a time. Nothing
# here calls the first two, which can't be told to end by a signal handler in Python.
BLOCKING = frozenset({"kp_spawn", "kp_handle_wait", "kp_handle_free"})


def _candidates() -> list[str]:
    override = os.environ.get("LIBKP")
    if override:
        return [override]
    return [LIBRARY, SONAME] if os.path.isabs(LIBRARY) else [SONAME]


def _open() -> ctypes.PyDLL:
    failures = []
    for path in _candidates():
        try:
            return ctypes.PyDLL(path)
        except OSError as error:
            failures.append(f"{path} ({error})")
    raise ImportError(
        "the library libkp can't be loaded; tried: " + "; ".join(failures) + ". "
        "The variable LIBKP may name its file."
    )


def _declared() -> SimpleNamespace:
    """The functions of the table, with their types."""
    holding = _open()
    # The one private name of another module here: a public one for "the same library
    # once more" would have to know the path that the loader found.
    releasing = ctypes.CDLL(None, handle=holding._handle)
    functions = SimpleNamespace()
    for name, (restype, argtypes) in FUNCTIONS.items():
        function = getattr(releasing if name in BLOCKING else holding, name)
        function.restype = restype
        function.argtypes = argtypes
        setattr(functions, name, function)
    return functions


lib = _declared()


def version() -> str:
    """The version of the library that runs."""
    return str(lib.kp_version().decode("ascii"))


def strings(entries: Iterable[bytes]) -> Any:
    """A char *[] that ends with NULL."""
    listed = list(entries)
    return (ctypes.c_char_p * (len(listed) + 1))(*listed, None)


def release(handle: Handle) -> None:
    """Frees what `handle` points to, once, however often it is called.

    The pointer is forgotten first: other threads and signal handlers that run meanwhile
    find NULL, which the library takes for "no such handle", and not freed memory.
    """
    pointer = Handle(handle.value)
    handle.value = None
    lib.kp_handle_free(pointer)
