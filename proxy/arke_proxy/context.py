"""What all connections of one proxy process share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from arke_proxy.backends.connector import BackendConnector
from arke_proxy.backends.dialer import Dialer
from arke_proxy.balancing.retry import RetryBudget
from arke_proxy.balancing.routes import Routes
from arke_proxy.connections.client_registry import ClientRegistry
from arke_proxy.connections.timeouts import TimeLimits, Timeouts
from arke_proxy.connections.write_batch import WriteBatch
from arke_proxy.http.error_pages import ErrorPages
from arke_proxy.http.forwarded import Forwarding
from arke_proxy.observability.request_record import NullRecorder, RequestRecorder


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyContext:
    """The parts of a proxy process that its connections use; `new_context` makes one."""

    loop: asyncio.AbstractEventLoop
    clock: Callable[[], float]
    routes: Routes
    forwarding: Forwarding
    recorder: RequestRecorder
    clients: ClientRegistry
    backends: BackendConnector
    timeouts: Timeouts
    retry_budget: RetryBudget
    write_batch: WriteBatch
    max_body: int | None  # bytes of a request's body
    request_trailers: bool  # forward the trailers of requests
    error_pages: ErrorPages

    def sweep(self) -> None:
        """Handle everything whose time limit has passed; called periodically."""
        now = self.clock()
        self.timeouts.sweep(self.clients, now)
        self.retry_budget.advance(now)
        self.backends.sweep(now)


def new_context(
    *,
    loop: asyncio.AbstractEventLoop,
    routes: Routes,
    dialer: Dialer,
    forwarding: Forwarding,
    limits: TimeLimits,
    max_clients: int,
    max_per_address: int | None = None,
    max_body: int | None = None,
    request_trailers: bool = False,
    error_details: bool = False,
    recorder: RequestRecorder | None = None,
    clock: Callable[[], float] = monotonic,
) -> ProxyContext:
    """Build the context of a proxy that serves `routes`.

    `max_clients` and `max_per_address` limit the client connections: in total, and from each IP
    address.
    """
    write_batch = WriteBatch(loop)
    return ProxyContext(
        loop=loop,
        clock=clock,
        routes=routes,
        forwarding=forwarding,
        recorder=recorder or NullRecorder(),
        clients=ClientRegistry(max_clients, max_per_address),
        backends=BackendConnector(dialer, loop, write_batch, idle_seconds=limits.pooled),
        timeouts=Timeouts(limits, clock),
        retry_budget=RetryBudget(clock()),
        write_batch=write_batch,
        max_body=max_body,
        request_trailers=request_trailers,
        error_pages=ErrorPages(detailed=error_details),
    )
