"""Time limits of the proxy, and what waits under them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from arke_proxy.connections.client_state import (
    CLOSED,
    EXCHANGE,
    FLUSHING,
    HANDSHAKE,
    IDLE,
    LINGERING,
    LINGERING_SLOW,
    REQUEST_HEAD,
    STREAMS,
    UPGRADED,
    ClientConnection,
    ClientState,
    ClientTimer,
)
from arke_proxy.connections.deadlines import Deadlines


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """How long the proxy waits, in seconds."""

    progress: float = 60.0  # for a backend to answer, or for a body to move, in either direction
    request_head: float = 10.0  # from the first byte of a request head to its last; TLS handshake
    keep_alive: float = 75.0  # a client connection between requests; longer than browsers reuse one
    linger: float = 2.0  # for a client to read the last response before its connection is closed
    connect: float = 1.0  # to a backend in the same network
    pooled: float = 4.0  # an idle connection to a backend; uvicorn and Node close theirs after 5
    drain_idle: float = 1.0  # after SIGTERM, an idle connection: a request may be on its way
    drain: float = 10.0  # after SIGTERM, requests that are running
    upgraded: float = 3600.0  # a WebSocket on which neither end sends anything
    total: float = math.inf  # a request and its response, whether or not they make progress


class StreamTimeout(Protocol):
    """An HTTP/2 stream under a time limit."""

    def timed_out(self) -> None: ...

    def __hash__(self) -> int: ...


class TotalTimeout(Protocol):
    """A request under the limit on its total time."""

    def total_timed_out(self) -> None: ...

    def __hash__(self) -> int: ...


class Timeouts:
    """Finds what has waited too long. No timer is started per request: `sweep` runs periodically.

    A client connection's limit depends on its state; an HTTP/2 stream has its own.
    """

    __slots__ = (
        "_of_state",
        "clock",
        "discarding",
        "has_total",
        "limits",
        "streams",
        "total",
    )

    def __init__(self, limits: TimeLimits, clock: Callable[[], float] = monotonic) -> None:
        self.limits = limits
        self.clock = clock  # not the loop's, which has whole milliseconds only
        self._of_state: dict[ClientState, float] = {
            HANDSHAKE: limits.request_head,
            IDLE: limits.keep_alive,
            REQUEST_HEAD: limits.request_head,
            EXCHANGE: limits.progress,
            STREAMS: math.inf,
            FLUSHING: limits.progress,
            UPGRADED: limits.upgraded,
            LINGERING: limits.linger,
            LINGERING_SLOW: limits.progress,
            CLOSED: math.inf,
        }
        self.streams: Deadlines[StreamTimeout] = Deadlines(limits.progress)
        # Streams whose response is sent, while the rest of their request is still arriving.
        self.discarding: Deadlines[StreamTimeout] = Deadlines(limits.linger)
        self.total: Deadlines[TotalTimeout] = Deadlines(limits.total)
        self.has_total = limits.total < math.inf

    def timer(self, state: ClientState) -> ClientTimer:
        """Make the timer of a new client connection, which starts in `state`."""
        return ClientTimer(state, self._of_state, self.clock)

    def sweep(self, clients: Iterable[ClientConnection], now: float) -> None:
        """Call the handlers of everything whose time limit has passed."""
        for client in [client for client in clients if client.timer.due <= now]:
            if client.timer.due <= now:  # else handling an earlier one has given it more time
                client.timer.pause()
                client.timed_out()
        for stream in self.streams.expired(now):
            stream.timed_out()
        for stream in self.discarding.expired(now):
            stream.timed_out()
        for exchange in self.total.expired(now):
            exchange.total_timed_out()
