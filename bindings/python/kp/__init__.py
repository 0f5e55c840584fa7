# SPDX-License-Identifier: Apache-2.0
"""Run a user-provided egress proxy beside a sandbox.

The proxy is started, it is known to be ready, children are told how to reach it, and it
is gone afterwards::

    import subprocess
    import kp

    with kp.spawn(["mitmdump", "--listen-host", "127.0.0.1", "-q"], port=8080) as proxy:
        subprocess.run(["curl", "https://example.com"], env=proxy.env())

The same on an asyncio loop, without a thread and without ever blocking the loop::

    async with kp.spawn_async(["my-proxy"]) as proxy:
        child = await asyncio.create_subprocess_exec("curl", url, env=proxy.env())

A proxy that runs already, such as a corporate agent, is attached to: it is known to be
there, children are told how to reach it, and it is never signalled::

    with kp.attach(8080) as proxy:
        subprocess.run(["curl", "https://example.com"], env=proxy.env())

A started proxy's side of the contract: it binds 127.0.0.1 at the port that it finds in
the variable KODA_PROXY_PORT, speaks HTTP CONNECT there, and stays in the foreground until
it is killed.

A host that would rather go on without a proxy that can't be started says so::

    try:
        proxy = kp.spawn(command)
    except kp.Error as error:
        print("going on without a proxy:", error)
        env = kp.env()
    else:
        env = proxy.env()

Rules that hold throughout:

* Durations are seconds, rounded up to whole milliseconds; None is the default.
* A proxy belongs to one thread at a time, an asynchronous one to its loop's thread; but
  `port`, `url` and `env()` may be used from any thread while nobody closes it.
* After `os.fork()`, and so in the workers of multiprocessing, the child may look at its
  copy of a proxy and make environments with it. Whatever the child does, closing and
  collecting included, leaves the proxy alone, and its living on does not keep the proxy of
  a killed parent alive. A host that forks to become a daemon does so before the start.
* A proxy that was not closed is stopped when it is collected, and when Python exits.
"""

from ._async import AsyncProxy, attach_async, spawn_async
from ._base import ExitStatus, State
from ._environment import env
from ._errors import (
    Code,
    Error,
    ExitedError,
    ForeignListenerError,
    ForkedError,
    GuardError,
    InvalidError,
    NotHttpError,
    PortInUseError,
    SpawnError,
    StateError,
    TimedOutError,
)
from ._ffi import DEFAULT_NO_PROXY, PORT_ENV, version
from ._proxy import Proxy, attach, spawn

__all__ = [
    "DEFAULT_NO_PROXY",
    "PORT_ENV",
    "AsyncProxy",
    "Code",
    "Error",
    "ExitStatus",
    "ExitedError",
    "ForeignListenerError",
    "ForkedError",
    "GuardError",
    "InvalidError",
    "NotHttpError",
    "PortInUseError",
    "Proxy",
    "SpawnError",
    "State",
    "StateError",
    "TimedOutError",
    "attach",
    "attach_async",
    "env",
    "spawn",
    "spawn_async",
]

# The library's own: the package has no version of its own that could differ.
__version__ = version()
