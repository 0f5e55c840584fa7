# SPDX-License-Identifier: Apache-2.0
"""What a proxy is, whether its host blocks or has a loop."""

from __future__ import annotations

import ctypes
import enum
import os
import warnings
import weakref
from collections.abc import Callable, Mapping
from typing import NamedTuple, Optional

from . import _environment, _errors, _ffi, _spec
from ._errors import Error, ForkedError, StateError

lib = _ffi.lib


class State(enum.IntEnum):
    """Where a proxy is in its life."""

    STARTING = 1
    """It was started, and is probed until it listens."""
    READY = 2
    """It listens."""
    STOPPING = 3
    """It was asked to end; what is left after the grace period is killed."""
    EXITED = 4
    """No process of it is left, but for one that had to be given up."""


UNFINISHED = (State.STARTING, State.READY, State.STOPPING)


class ExitStatus(NamedTuple):
    """How the proxy's process ended; both are None where nobody can know."""

    code: Optional[int]
    """What it passed to exit(); None: a signal killed it."""
    signal: Optional[int]
    """The signal that killed it."""


def _abandon(handle: _ffi.Handle, owner: int) -> None:
    """The end of a proxy that nobody closed: it is collected, or Python exits."""
    forgotten = lib.kp_handle_port(handle) if os.getpid() == owner else 0
    _ffi.release(handle)
    # Last, as a warning may be an exception.
    if forgotten:
        words = f"the proxy on port {forgotten} was never closed"
        warnings.warn(words, ResourceWarning, stacklevel=3)


_proxies: weakref.WeakSet[BaseProxy] = weakref.WeakSet()


def _let_go() -> None:
    """In a forked child: it keeps neither the proxy of a killed parent alive, nor the port and
    the log of one that has closed it.

    Nothing here waits for another thread, of which the child has none.
    """
    for proxy in list(_proxies):
        lib.kp_handle_detach(proxy._handle)


os.register_at_fork(after_in_child=_let_go)


class BaseProxy:
    """What `Proxy` and `AsyncProxy` have in common; not made by hosts."""

    def __init__(self, spec: _spec.Spec) -> None:
        self._spec = spec
        self._handle = _ffi.Handle()
        _proxies.add(self)
        # Before there is anything to free, so that a Ctrl-C finds no gap. It does not
        # refer to self, runs at exit too, and in a forked child only releases.
        self._finalizer = weakref.finalize(self, _abandon, self._handle, os.getpid())
        self._failure: Optional[Error] = None
        self._given_up: Optional[Error] = None
        self._known = State.EXITED
        self._exit_status: Optional[ExitStatus] = None
        self._pid: Optional[int] = None
        self._port = 0

    # ---- Look ----

    @property
    def port(self) -> int:
        """The port on 127.0.0.1, the same for the proxy's life, restarts included."""
        return self._port

    @property
    def url(self) -> str:
        """The proxy as clients are told of it, "http://127.0.0.1:PORT"."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> Optional[int]:
        """The process id, for logs; None: attached, or not started yet.

        It stays after the exit, so send no signal to it.
        """
        return self._pid

    @property
    def state(self) -> State:
        """Where the proxy is in its life; this looks afresh."""
        self._look()
        return self._known

    @property
    def exit_status(self) -> Optional[ExitStatus]:
        """How the process ended; None: not yet. This looks afresh."""
        self._look()
        return self._exit_status

    @property
    def alive(self) -> bool:
        """Whether the process runs, be it ready or not; this looks afresh.

        One that was attached to counts as alive until it is stopped: nobody watches it.
        """
        return self.state is not State.EXITED and self._exit_status is None

    def env(self, base: Optional[Mapping[str, str]] = None) -> dict[str, str]:
        """The environment for a child: `base`, and over it the proxy.

        A `base` of None is `os.environ`; an empty one gives the proxy's variables alone.
        It stays true over a restart, and does not depend on the proxy's state.
        """
        self._require_open()
        return _environment.proxied(self._handle, base)

    def __repr__(self) -> str:
        # Nothing that looks, and so steps: a repr must not change what it shows.
        state = self._known.name.lower() if self._handle else "closed"
        return f"<{type(self).__name__} {self.url} pid={self._pid} {state}>"

    # ---- For the subclasses. None of this blocks. ----

    def _require_open(self) -> None:
        if not self._handle:
            raise StateError("the proxy is not running: it was closed, or not started yet")

    def _call(self, function: Callable[..., int], *arguments: object) -> None:
        error = _ffi.ErrorStruct()
        if function(*arguments, ctypes.byref(error)) < 0:
            raise _errors.from_struct(error)

    def _start(self) -> None:
        """Starts the proxy; the state is STARTING and a step is due."""
        if self._handle or not self._finalizer.alive:
            raise StateError("a proxy is started once: it has been started already")
        self._call(lib.kp_start, ctypes.byref(self._spec.struct()), ctypes.byref(self._handle))
        self._port = lib.kp_handle_port(self._handle)
        self._notice()

    def _restart(self) -> None:
        """Starts the proxy again, which has to be in EXITED; then as `_start()`."""
        self._require_open()
        self._call(lib.kp_handle_restart, self._handle)
        self._failure = self._given_up = None
        self._notice()

    def _step(self) -> None:
        """Does what is due. A failure is kept, since the library tells it once."""
        try:
            self._call(lib.kp_handle_step, self._handle)
        except ForkedError:
            raise
        except Error as error:
            if lib.kp_handle_state(self._handle) == State.EXITED:
                self._given_up = error
            else:
                self._failure = error
        self._notice()

    def _look(self) -> None:
        """Looks afresh; in a forked child it is left at what the parent last saw."""
        if self._handle:
            try:
                self._step()
            except ForkedError:
                pass

    def _begin_stop(self, grace: Optional[float]) -> None:
        """Asks the proxy to end; a step is due."""
        if not self._handle:
            return  # Closed, and so gone.
        result = lib.kp_handle_stop(self._handle, _spec.grace_ms(grace))
        if result < 0:
            raise _errors.from_result(result, "stop")
        self._notice()

    def _notice(self) -> None:
        """Takes over what the library knows now."""
        state = lib.kp_handle_state(self._handle)
        if not state:
            return  # Another thread has closed it just now.
        before, self._known = self._known, State(state)
        self._pid = lib.kp_handle_pid(self._handle) or None
        self._exit_status = self._read_exit_status()
        if self._known is not before:
            self._changed()

    def _changed(self) -> None:
        """Called whenever the state is another."""

    def _read_exit_status(self) -> Optional[ExitStatus]:
        code, signal = ctypes.c_int(), ctypes.c_int()
        if not lib.kp_handle_exit_status(self._handle, ctypes.byref(code), ctypes.byref(signal)):
            return None
        return ExitStatus(None if code.value < 0 else code.value, signal.value or None)

    def _require_ready(self) -> None:
        """Raises what came in between, once the start has ended one way or the other."""
        if self._known is not State.READY:
            raise self._failure or StateError("the proxy was stopped before it was ready")

    def _require_gone(self) -> ExitStatus:
        """Once the state is EXITED. Raises where a process had to be given up."""
        given_up, self._given_up = self._given_up, None
        if given_up is not None:
            raise given_up
        return self._exit_status or ExitStatus(None, None)

    def _release(self) -> None:
        """Frees the handle; what was known of the proxy remains."""
        _ffi.release(self._handle)
        self._known = State.EXITED
        # Last: a Ctrl-C before it leaves the finalizer nothing to do.
        self._finalizer.detach()
