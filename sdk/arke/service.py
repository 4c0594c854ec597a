"""A service: registers in a cluster, runs its handlers, and drains when it stops."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from arke.limits import Limits
from arke.mesh import Mesh
from arke.runtime.arguments import check_headers, check_name
from arke.runtime.dispatch import Dispatcher
from arke.runtime.event_loop import loop_factory
from arke.runtime.http_server_address import METADATA_KEY, parse_http_address
from arke.runtime.service_handlers import (
    BroadcastHandler,
    DropHandler,
    MultipartHandler,
    RequestHandler,
    ServiceHandlers,
    TunnelHandler,
)
from arke.wire.limits import MAX_METADATA

log = logging.getLogger("arke")

_DRAIN = 30.0

InitHandler = Callable[[Mesh], Awaitable[None]] | Callable[[Mesh], None]

_R = TypeVar("_R", bound=RequestHandler)
_B = TypeVar("_B", bound=BroadcastHandler)
_M = TypeVar("_M", bound=MultipartHandler)
_T = TypeVar("_T", bound=TunnelHandler)
_D = TypeVar("_D", bound=DropHandler)
_I = TypeVar("_I", bound=InitHandler)


class Service:
    """Handles the requests, broadcasts and tunnels of a cluster.

    `service.run()` runs until SIGTERM or SIGINT; `async with service:` runs during the block. Both
    then leave the cluster and finish running handlers, for at most `drain` seconds. `wait` is how
    many seconds to retry until a relay is found. `metadata` is text that other programs see of
    this member, at most 4 KiB.

    `http` is the address of this service's HTTP server: `IP:PORT`, or `:PORT` at the address of
    the node. It is registered in the metadata as `http`. Programs that cannot connect to it
    themselves use a tunnel, and this program connects to that address for them, to no other. Raises
    ValueError for an invalid address, cluster name or metadata.
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
        self._http = parse_http_address(http) if http is not None else None
        given = dict(metadata or {})
        if self._http:
            given[METADATA_KEY] = str(self._http)
        self.metadata = check_headers(given, "metadata", MAX_METADATA)
        """What other programs see of this member. It may be changed until the service registers."""
        self.mesh = Mesh(port, path, wait)
        """The mesh of this service: open while the service runs."""
        self._drain = drain
        self._handlers = ServiceHandlers()
        self._on_init: InitHandler | None = None
        self._dispatcher: Dispatcher | None = None

    def __repr__(self) -> str:
        return f"<arke.Service {self.cluster!r} on {self.mesh!r}>"

    @property
    def expired(self) -> int:
        """Requests that were not started because their deadline had passed."""
        return self._dispatcher.expired if self._dispatcher else 0

    @property
    def dropped(self) -> int:
        """Broadcasts that were dropped because too many were waiting."""
        return self._dispatcher.dropped if self._dispatcher else 0

    # Handlers. Each is registered once.

    def on_request(self, handler: _R) -> _R:
        """Register the request handler, as a decorator.

        The handler gets a Request and returns the reply; what it raises reaches the caller as
        RemoteError. A plain function runs in a thread.
        """
        _check_unset("on_request", self._handlers.on_request)
        self._handlers.on_request = handler
        return handler

    def on_request_many(self, handler: _M) -> _M:
        """Register the handler of `request_many`: an async generator that yields the parts.

        It is closed early when the caller stops reading. Without it, the reply of `on_request` is
        the only part.
        """
        is_generator: bool = inspect.isasyncgenfunction(handler)
        if not is_generator:
            raise TypeError("the handler of on_request_many must be an async generator function")
        _check_unset("on_request_many", self._handlers.on_request_many)
        self._handlers.on_request_many = handler
        return handler

    def on_tunnel(self, handler: _T) -> _T:
        """Register the tunnel handler: a coroutine function. Its tunnel closes when it returns.

        What it raises reaches the other end as TunnelClosed.
        """
        is_coroutine: bool = inspect.iscoroutinefunction(handler)
        if not is_coroutine:
            raise TypeError("the handler of on_tunnel must be a coroutine function")
        _check_unset("on_tunnel", self._handlers.on_tunnel)
        self._handlers.on_tunnel = handler
        return handler

    def on_broadcast(self, handler: _B) -> _B:
        """Register the broadcast handler. A plain function runs in a thread."""
        _check_unset("on_broadcast", self._handlers.on_broadcast)
        self._handlers.on_broadcast = handler
        return handler

    def on_drop(self, handler: _D) -> _D:
        """Register a handler that is called with the reason whenever the relay is lost.

        The service reconnects by itself.
        """
        _check_unset("on_drop", self._handlers.on_drop)
        self._handlers.on_drop = handler
        return handler

    def on_init(self, handler: _I) -> _I:
        """Register a handler that is called with the mesh before the service registers.

        If it raises, the service does not start.
        """
        _check_unset("on_init", self._on_init)
        self._on_init = handler
        return handler

    # Running.

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain. Uses uvloop if it is installed.

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
        # A signal also ends a service that is still waiting for its relay.
        stopping = loop.create_task(stopped.wait())
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not serving.done() and self._dispatcher is None:
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
            if self._on_init:
                result = self._on_init(self.mesh)
                if inspect.isawaitable(result):
                    await result
            self._dispatcher = Dispatcher(
                self.cluster, self.metadata, self.limits, self.mesh, self._handlers, self._http
            )
            await self._dispatcher.register()
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
        dispatcher = self._dispatcher
        assert dispatcher
        try:
            async with asyncio.timeout(self._drain):
                await dispatcher.unregister()
                await dispatcher.wait_idle()
        except TimeoutError:
            log.warning(
                "service %r: handlers still ran after %g s and were cancelled",
                self.cluster,
                self._drain,
            )
        finally:
            try:
                await dispatcher.stop()
            finally:
                await self.mesh.close()


def _check_unset(name: str, handler: Callable[..., Any] | None) -> None:
    if handler is not None:
        known = getattr(handler, "__qualname__", repr(handler))
        raise RuntimeError(f"{name} already has the handler {known}: a service has one of each")
