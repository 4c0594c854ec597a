"""A service: its handlers, and a life that ends in order."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Self, TypeVar

from arke.limits import Limits
from arke.mesh import Mesh
from arke.program.addresses import HostPort, ip_port
from arke.runtime.dispatch import (
    BroadcastHandler,
    DropHandler,
    Handlers,
    PartsHandler,
    RequestHandler,
    Serving,
    TunnelHandler,
)
from arke.runtime.event_loop import loop_factory
from arke.runtime.http_tunnels import METADATA_KEY
from arke.runtime.reconnect import check_headers, check_name
from arke.wire.limits import MAX_METADATA

log = logging.getLogger("arke")

_DRAIN = 30.0

InitHandler = Callable[[Mesh], Awaitable[None]] | Callable[[Mesh], None]

_R = TypeVar("_R", bound=RequestHandler)
_B = TypeVar("_B", bound=BroadcastHandler)
_P = TypeVar("_P", bound=PartsHandler)
_T = TypeVar("_T", bound=TunnelHandler)
_D = TypeVar("_D", bound=DropHandler)
_I = TypeVar("_I", bound=InitHandler)


class Service:
    """Answers requests to a cluster, hears its broadcasts, holds the other end of its tunnels.

    `service.run()` runs until SIGTERM or SIGINT; `async with service:` inside a program until the
    block ends. Both leave the cluster first and finish what was begun, for at most `drain`
    seconds. `wait` is how long to keep trying for a relay at first. `metadata` is text that others
    see of this member, 4 KiB at most.

    `http` is where an HTTP server of this service listens: `IP:PORT`, or `:PORT` at whatever
    address its node has. The metadata says so, as `http`; and whoever of the mesh cannot connect
    there has this program connect for it, to that address and to no other. Raises ValueError for
    what is no such address, a bad name or too much metadata.
    """

    def __init__(
        self,
        cluster: str,
        *,
        limits: Limits | None = None,
        metadata: Mapping[str, str] | None = None,
        http: str | None = None,
        port: int | None = None,
        path: str | os.PathLike[str] | None = None,
        wait: float = 5.0,
        drain: float = _DRAIN,
    ) -> None:
        check_name(cluster, "cluster")
        self.cluster = cluster
        self.limits = limits or Limits()
        self._http = _http_address(http) if http is not None else None
        given = dict(metadata or {})
        if self._http:
            given[METADATA_KEY] = str(self._http)
        self.metadata = check_headers(given, "metadata", MAX_METADATA)
        """What members of the mesh can know of this one; to be set until it registers."""
        self.mesh = Mesh(port, path, wait)
        self._drain = drain
        self._handlers = Handlers()
        self._init: InitHandler | None = None
        self._serving: Serving | None = None

    @property
    def expired(self) -> int:
        """Requests that were not begun because their deadline had passed."""
        return self._serving.expired if self._serving else 0

    @property
    def dropped(self) -> int:
        """Broadcasts that were dropped: too much of them waited already."""
        return self._serving.dropped if self._serving else 0

    # Handlers. Each may be a coroutine function or a plain one.

    def on_request(self, handler: _R) -> _R:
        """What the handler returns is the reply; what it raises reaches the caller as RemoteError.

        A plain function runs in a thread.
        """
        self._handlers.answer = handler
        return handler

    def on_request_many(self, handler: _P) -> _P:
        """An async generator: what it yields are the parts of the answer to `request_many`.

        It is ended early when nobody wants the rest. Without one, `request_many` gets the reply of
        `on_request` as the only part.
        """
        fits: bool = inspect.isasyncgenfunction(handler)
        if not fits:
            raise TypeError("a handler of on_request_many is an async generator function")
        self._handlers.answer_in_parts = handler
        return handler

    def on_tunnel(self, handler: _T) -> _T:
        """A coroutine function that is handed each tunnel; when it returns the tunnel is closed.

        What it raises reaches the other end as TunnelClosed.
        """
        fits: bool = inspect.iscoroutinefunction(handler)
        if not fits:
            raise TypeError("a handler of on_tunnel is a coroutine function")
        self._handlers.converse = handler
        return handler

    def on_broadcast(self, handler: _B) -> _B:
        """A plain function runs in a thread."""
        self._handlers.hear = handler
        return handler

    def on_drop(self, handler: _D) -> _D:
        """Told why whenever the relay is lost. The service attaches again by itself."""
        self._handlers.drop = handler
        return handler

    def on_init(self, handler: _I) -> _I:
        """Called with the mesh before registering; by raising it refuses to serve."""
        self._init = handler
        return handler

    # Life.

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain. Uses uvloop where it is installed.

        Raises what `on_init` raised, or RelayUnreachable.
        """
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(self._run())

    async def _run(self) -> None:
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopped.set)
        serving = loop.create_task(self._serve(stopped))
        # Whoever stops a service that still waits for its relay does not want to wait too.
        stopping = loop.create_task(stopped.wait())
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not serving.done() and self._serving is None:
            serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serving
        else:
            await serving

    async def _serve(self, stopped: asyncio.Event) -> None:
        async with self:
            await stopped.wait()

    async def __aenter__(self) -> Self:
        await self.mesh.__aenter__()
        try:
            if self._init:
                made = self._init(self.mesh)
                if inspect.isawaitable(made):
                    await made
            self._serving = Serving(
                self.cluster, self.metadata, self.limits, self.mesh, self._handlers, self._http
            )
            await self._serving.join()
        except BaseException:
            await self.mesh.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._serving
        try:
            async with asyncio.timeout(self._drain):
                await self._serving.leave()
                await self._serving.idle()
        except TimeoutError:
            log.warning("%r did not finish in %g s: cancelled", self.cluster, self._drain)
        finally:
            try:
                await self._serving.stop()
            finally:
                await self.mesh.close()


def _http_address(text: str) -> HostPort:
    try:
        return ip_port(text)
    except ValueError as error:
        raise ValueError(f"http {error} (got {text[:80]!r})") from None
