"""A service: registers in a cluster, runs its handlers, and drains when it stops."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
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
    ErrorHandler,
    MultipartHandler,
    RequestHandler,
    ServiceHandlers,
    TunnelHandler,
)
from arke.runtime.stop_signals import stop_signals
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

    What a handler raises is logged with its traceback, at most once a second for each type, and
    reaches the caller as text. `on_error` is called each time with the exception and the Request,
    Broadcast or Tunnel, for example to count it or to send it to an error tracker.

    A coroutine handler of requests is cancelled at the deadline of its request, unless
    `cancel_at_deadline` is False. A plain function runs on in its thread: it can end early when
    `request.cancelled` is True.
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
        on_error: ErrorHandler | None = None,
        cancel_at_deadline: bool = True,
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
        self._handlers = ServiceHandlers(on_error=on_error, cancel_at_deadline=cancel_at_deadline)
        self._on_init: InitHandler | None = None
        self._dispatcher: Dispatcher | None = None

    def __repr__(self) -> str:
        return f"<arke.Service {self.cluster!r} on {self.mesh!r}>"

    @property
    def expired(self) -> int:
        """Requests that were not started because their deadline had passed."""
        return self._dispatcher.requests.expired if self._dispatcher else 0

    @property
    def timed_out(self) -> int:
        """Requests whose handler still ran at the deadline."""
        return self._dispatcher.requests.timed_out if self._dispatcher else 0

    @property
    def dropped(self) -> int:
        """Broadcasts that were dropped because too many were waiting."""
        return self._dispatcher.broadcasts.dropped if self._dispatcher else 0

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

        A second signal ends the process at once. Raises what `on_init` raised, or RelayUnreachable.
        """
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(self._run())

    async def _run(self) -> None:
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        with stop_signals(lambda: loop.call_soon_threadsafe(stopped.set)):
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
            log.info("service %r is serving at node %s", self.cluster, self.mesh.node.id)
            await stopped.wait()
            assert self._dispatcher
            work = self._dispatcher.describe_work()
            log.info("service %r is draining for at most %g s: %s", self.cluster, self._drain, work)

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
            work = dispatcher.describe_work()
            log.warning(
                "service %r: the drain ended after %g s, and its handlers are cancelled: %s",
                self.cluster,
                self._drain,
                work,
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
