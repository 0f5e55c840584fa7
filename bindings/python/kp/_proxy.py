# SPDX-License-Identifier: Apache-2.0
"""A proxy for hosts that block."""

from __future__ import annotations

import select
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Optional, TypeVar, Union

from ._base import UNFINISHED, BaseProxy, ExitStatus, State, lib
from ._errors import ForkedError
from ._spec import HasFileno, Path, Spec

# Seconds; no wait for an event is longer. A signal that comes between Python's look for
# signals and poll(), and an end that another thread was first to see, wake nobody.
_LONGEST_PAUSE = 1.0

_Self = TypeVar("_Self", bound="Proxy")


class Proxy(BaseProxy):
    """A proxy that `spawn()` has started, or `attach()` found. As a context manager it closes
    itself."""

    def wait(self, timeout: Optional[float] = None) -> ExitStatus:
        """Waits until the proxy has ended, and says how.

        Raises TimeoutError after `timeout` seconds (None: waits for ever), and `Error`
        where a process of the proxy's can't be killed and had to be given up.
        """
        self._leave(UNFINISHED, None if timeout is None else time.monotonic() + timeout)
        return self._require_gone()

    def stop(self, grace: Optional[float] = None) -> None:
        """Ends the proxy and waits for its end: SIGTERM, and SIGKILL `grace` seconds later.

        None is the `stop_grace` of `spawn()`, 0 is SIGKILL now; a later call can only
        bring it nearer. The proxy may then be restarted. Raises `Error` as `wait()` does.
        """
        self._begin_stop(grace)
        self.wait()

    def restart(self) -> None:
        """Starts the proxy again on the same port, and waits until it is ready.

        It is stopped first where it still runs. Children that run already go on working.
        Raises as `spawn()` does; the proxy is then stopped, and may be restarted again.
        """
        self._require_open()
        self.stop()
        try:
            self._restart()
            self._become_ready()
        except BaseException:
            self.stop()
            raise

    def close(self) -> None:
        """Stops the proxy and releases all that belongs to it; more than once is fine.

        An exception meanwhile, such as a Ctrl-C, ends the grace.
        """
        try:
            self.stop()
        except ForkedError:
            pass  # The parent's proxy: only the copy is released.
        except BaseException:
            lib.kp_handle_stop(self._handle, 0)
            raise
        finally:
            self._release()

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()

    def _become_ready(self) -> None:
        self._leave((State.STARTING,), None)
        self._require_ready()

    # Not kp_handle_wait(): what blocks in C keeps Python's signal handlers from running.
    def _leave(self, states: tuple[State, ...], deadline: Optional[float]) -> None:
        """Steps until the state is none of these."""
        while self._known in states:
            self._step()
            if self._known in states:
                self._pause(deadline)

    def _pause(self, deadline: Optional[float]) -> None:
        """Blocks until a step is due."""
        seconds = _LONGEST_PAUSE
        if deadline is not None:
            seconds = min(seconds, deadline - time.monotonic())
            if seconds <= 0:
                raise TimeoutError("the proxy has not ended in time")
        fd = lib.kp_handle_fd(self._handle)
        if fd >= 0:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            poll.poll(seconds * 1000)
        else:
            self._sleep(seconds)

    def _sleep(self, seconds: float) -> None:
        """The pause of a host that has no descriptor left to be woken by."""
        due = lib.kp_handle_timeout_ns(self._handle)
        time.sleep(seconds if due < 0 else min(seconds, due / 1_000_000_000))


def spawn(
    command: Iterable[Path],
    *,
    port: Optional[int] = None,
    startup_timeout: Optional[float] = None,
    stop_grace: Optional[float] = None,
    env: Optional[Mapping[str, str]] = None,
    clear_env: bool = False,
    cwd: Optional[Path] = None,
    log: Union[None, int, HasFileno] = None,
    ca_bundle: Optional[Path] = None,
    no_proxy: Optional[str] = None,
    port_env: Optional[str] = None,
    guard: bool = True,
    reserve: bool = True,
    probe_http: bool = False,
    any_listener: bool = False,
) -> Proxy:
    """Starts a proxy and waits until it is ready.

    command: the program and its arguments. A program without a slash is looked up in the
        host's PATH; one with a slash counts from `cwd`.
    port: the port on 127.0.0.1; None or 0: one that the kernel chooses.
    startup_timeout: seconds that the proxy has to begin to listen; None: 5.
    stop_grace: seconds from SIGTERM to SIGKILL; None: 2.
    env: variables for the proxy alone, over the host's environment (without what concerns
        the host alone, such as NOTIFY_SOCKET).
    clear_env: the proxy gets only `env` and its port, not the host's environment.
    cwd: the folder that the proxy starts in; None: the host's.
    log: a file, or its descriptor, for the proxy's output; None: the host's standard
        error. Where it is a regular file, a failure quotes its end in `Error.output`. It
        may be closed once the proxy has started. The reader of a pipe sees no end before
        `close()`.
    ca_bundle: a PEM file that children are to trust: the system's roots and the proxy's own.
    no_proxy: what children reach without the proxy; None: `DEFAULT_NO_PROXY`, which lets
        them reach the metadata service of cloud machines; "": nothing.
    port_env: the variable that tells the proxy its port; None: `PORT_ENV`.
    guard: whether a small process is to end the proxy when the host is killed. Messages
        call False by its C name, KP_SPEC_NO_GUARD.
    reserve: whether the port is kept from other programs. False, in messages
        KP_SPEC_NO_RESERVE, is for a proxy that binds without SO_REUSEADDR, such as Python's
        socketserver.TCPServer.
    probe_http: whether it is ready only once it answers a CONNECT as an HTTP proxy does.
    any_listener: accept a listener that is not the proxy's own, as with `docker run -p` and
        systemd-run. Such a daemon may listen before the proxy does: use it with
        `probe_http`. Messages call it KP_SPEC_ANY_LISTENER.

    Raises `Error`; then nothing of the proxy is left, as after a Ctrl-C. A
    proxy that failed is stopped like any other, so this may take `stop_grace` longer.
    """
    return _started(
        Spec(
            command=command,
            port=port,
            startup_timeout=startup_timeout,
            stop_grace=stop_grace,
            env=env,
            clear_env=clear_env,
            cwd=cwd,
            log=log,
            ca_bundle=ca_bundle,
            no_proxy=no_proxy,
            port_env=port_env,
            guard=guard,
            reserve=reserve,
            probe_http=probe_http,
            any_listener=any_listener,
        )
    )


def attach(
    port: int,
    *,
    startup_timeout: Optional[float] = None,
    ca_bundle: Optional[Path] = None,
    no_proxy: Optional[str] = None,
    probe_http: bool = False,
    any_listener: bool = False,
) -> Proxy:
    """Waits until a proxy that runs already, such as a corporate agent, answers on a port.

    It is never signalled: `stop()` and `close()` leave it running, `restart()` looks for it
    anew. Nobody watches it either: until then it counts as ready and alive, `wait()` waits
    for a `stop()`, and there is no exit status.

    port: its port on 127.0.0.1.
    startup_timeout: seconds that it has to answer; None: 5.
    any_listener: accept one that belongs to another user than root and the host's own.
    ca_bundle, no_proxy, probe_http: as for `spawn()`.

    Raises `Error`.
    """
    return _started(
        Spec(
            attach=True,
            port=port,
            startup_timeout=startup_timeout,
            ca_bundle=ca_bundle,
            no_proxy=no_proxy,
            probe_http=probe_http,
            any_listener=any_listener,
        )
    )


def _started(spec: Spec) -> Proxy:
    proxy = Proxy(spec)
    try:
        proxy._start()
        proxy._become_ready()
    except BaseException:
        proxy.close()
        raise
    return proxy
