# SPDX-License-Identifier: Apache-2.0
"""A proxy for hosts on an asyncio loop: no thread, no timer, nothing that blocks."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterable, Mapping
from types import TracebackType
from typing import Any, Optional, TypeVar, Union

from ._base import UNFINISHED, BaseProxy, ExitStatus, State, lib
from ._errors import Code, Error, ForkedError
from ._spec import HasFileno, Path, Spec

_Self = TypeVar("_Self", bound="AsyncProxy")


class AsyncProxy(BaseProxy):
    """A proxy that `spawn_async()` or `attach_async()` has made. It starts when it is entered
    or awaited::

        async with kp.spawn_async(command) as proxy: ...    # closes itself
        proxy = await kp.spawn_async(command)               # to be closed by the host
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._watched: Optional[int] = None
        # Who waits, first come, first told, and for which states to be left.
        self._waiters: dict[asyncio.Future[None], tuple[State, ...]] = {}

    async def wait(self) -> ExitStatus:
        """Waits until the proxy has ended, and says how.

        Raises `Error` where a process of the proxy's can't be killed and had to be given up.
        """
        await self._leave(UNFINISHED)
        return self._require_gone()

    async def stop(self, grace: Optional[float] = None) -> None:
        """Ends the proxy and waits for its end: SIGTERM, and SIGKILL `grace` seconds later.

        None is the `stop_grace` of `spawn_async()`, 0 is SIGKILL now; a later call can
        only bring it nearer. The proxy may then be restarted. Raises as `wait()` does.
        """
        self._begin_stop(grace)
        await self.wait()

    async def restart(self) -> None:
        """Starts the proxy again on the same port, and waits until it is ready.

        It is stopped first where it still runs. Children that run already go on working.
        Raises as the start does; the proxy is then stopped, and may be restarted again.
        """
        self._require_open()
        await self.stop()
        try:
            self._restart()
            await self._become_ready()
        except (Exception, asyncio.CancelledError):
            await self.stop()
            raise

    async def close(self) -> None:
        """Stops the proxy and releases all that belongs to it; more than once is fine.

        To be cancelled meanwhile ends the grace, but not the wait for the proxy's end.
        """
        try:
            await self._end()
        except ForkedError:
            pass  # The parent's proxy: only the copy is released.
        finally:
            self._release()

    async def __aenter__(self: _Self) -> _Self:
        return self if self._handle else await self._spawn()

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        await self.close()

    def __await__(self: _Self) -> Generator[Any, None, _Self]:
        return self._spawn().__await__()

    async def _spawn(self: _Self) -> _Self:
        loop = asyncio.get_running_loop()
        self._start()
        self._loop = loop
        try:
            self._watch()
            await self._become_ready()
        except (Exception, asyncio.CancelledError):
            await self.close()
            raise
        return self

    async def _become_ready(self) -> None:
        await self._leave((State.STARTING,))
        self._require_ready()

    async def _end(self) -> None:
        if self._known is not State.EXITED and self._watched is None:
            # No descriptor could be had, and nothing would wake this: the release is to
            # block, a second at most.
            self._begin_stop(0)
            return
        self._begin_stop(None)
        cancelled = None
        while self._known is not State.EXITED:
            try:
                await self._leave(UNFINISHED)
            except asyncio.CancelledError as error:
                cancelled = error
                self._begin_stop(0)
        if cancelled is not None:
            raise cancelled
        self._require_gone()

    async def _leave(self, states: tuple[State, ...]) -> None:
        """Waits until the state is none of these, be it for a moment."""
        if self._known in states:
            assert self._loop is not None
            waiter = self._loop.create_future()
            self._waiters[waiter] = states
            try:
                await waiter
            finally:
                self._waiters.pop(waiter, None)

    def _changed(self) -> None:
        for waiter, states in self._waiters.items():
            if self._known not in states and not waiter.done() and not waiter.get_loop().is_closed():
                waiter.set_result(None)

    def _watch(self) -> None:
        assert self._loop is not None
        fd = lib.kp_handle_fd(self._handle)
        if fd < 0:
            raise Error("no descriptor can be had to watch the proxy by", code=Code.SYSTEM)
        self._loop.add_reader(fd, self._step)
        self._watched = fd

    def _unwatch(self) -> None:
        watched, self._watched = self._watched, None
        # In a forked child the library has no descriptor, and the loop's selector is the
        # parent's too: what is removed there the parent does not see any more.
        if watched is None or watched != lib.kp_handle_fd(self._handle):
            return
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(watched)

    def _release(self) -> None:
        self._unwatch()
        super()._release()


def spawn_async(
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
) -> AsyncProxy:
    """A proxy for the running asyncio loop, to be entered by `async with`, or awaited.

    The arguments and what is raised are those of `spawn()`; all of it is raised when the
    proxy is entered or awaited. Cancelled meanwhile, it leaves nothing of the proxy.
    """
    return AsyncProxy(
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


def attach_async(
    port: int,
    *,
    startup_timeout: Optional[float] = None,
    ca_bundle: Optional[Path] = None,
    no_proxy: Optional[str] = None,
    probe_http: bool = False,
    any_listener: bool = False,
) -> AsyncProxy:
    """A proxy that runs already, for the running asyncio loop: entered or awaited.

    The arguments and what is raised are those of `attach()`; all of it is raised when the
    proxy is entered or awaited.
    """
    return AsyncProxy(
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
