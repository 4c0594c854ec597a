"""What every connection of the proxy shares."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from arke_proxy.backends.pool import Pool
from arke_proxy.balancing.retry import RetryBudget
from arke_proxy.balancing.routes import Routes
from arke_proxy.connections.deadlines import Deadlines, Wait
from arke_proxy.connections.write_batch import Turn
from arke_proxy.errors import Exhausted
from arke_proxy.http.forwarded import Forwarding
from arke_proxy.observability.log_throttle import Complaints
from arke_proxy.observability.request_record import RequestRecorder

if TYPE_CHECKING:
    from arke_proxy.backends.address import BackendAddress
    from arke_proxy.backends.connection import BackendConnection
    from arke_proxy.backends.dialer import Dialer
    from arke_proxy.http.exchange import Exchange

log = logging.getLogger("arke.proxy")

_POOLED_PER_BACKEND = 128


@dataclass(frozen=True, slots=True)
class Times:
    """How long the proxy waits, in seconds."""

    silence: float = 60.0  # for a backend to answer, or for a body to move, in either direction
    head: float = 10.0  # from a head's first byte to its last
    idle: float = 75.0  # a client's connection between requests; longer than browsers reuse one
    linger: float = 2.0  # for a client to read the last answer before its connection is closed
    connect: float = 1.0  # to a backend: a switch away, not an ocean
    pooled: float = 4.0  # an idle connection to a backend; uvicorn and Node close theirs at 5
    parting: float = 1.0  # after SIGTERM, for a request that is already on its way
    grace: float = 10.0  # after SIGTERM, for requests that are running
    spliced: float = 3600.0  # for a WebSocket, in which nothing comes from either end
    whole: float = math.inf  # for a request and its answer, whether or not they move


class Expiring(Protocol):
    """What waits under a deadline."""

    def expired(self) -> None:
        """Act on the deadline, which has just passed."""

    def __hash__(self) -> int: ...


class Guest(Expiring, Protocol):
    """A client's connection."""

    peer: str
    """The client's address."""

    due: float
    """When it has waited too long, on the hub's clock. Most move it before anyone looks."""

    def part(self) -> None:
        """Close if nothing is going on."""

    def cut(self) -> None:
        """End at once."""


class Hub:
    """One proxy's parts, and the deadlines of its connections."""

    __slots__ = (
        "answered",
        "budget",
        "clients",
        "clock",
        "complaints",
        "connections",
        "deserted",
        "dialer",
        "draining",
        "forwarding",
        "idle",
        "in_head",
        "limits_whole",
        "lingering",
        "loop",
        "most_body",
        "most_clients",
        "most_of_one",
        "pool",
        "recorder",
        "routes",
        "running",
        "streams",
        "times",
        "turn",
        "whole",
    )

    def __init__(
        self,
        routes: Routes,
        times: Times,
        loop: asyncio.AbstractEventLoop,
        most_clients: int,
        recorder: RequestRecorder,
        dialer: Dialer,
        forwarding: Forwarding,
        *,
        most_body: int | None = None,
        most_of_one: int | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.routes = routes
        self.recorder = recorder
        self.dialer = dialer
        self.forwarding = forwarding
        self.most_body = most_body  # bytes of a request's body
        self.times = times
        self.loop = loop
        self.clock = clock  # not the loop's: in one of its milliseconds many a request is over
        self.turn = Turn(loop)
        self.most_clients = most_clients  # connected at once
        self.pool: Pool[BackendConnection] = Pool(_POOLED_PER_BACKEND, times.pooled)
        self.complaints = Complaints(log, loop.time)
        self.most_of_one = most_of_one  # connected at once from one address
        self.connections: Counter[str] = Counter()  # by address
        self.clients: set[Guest] = set()
        self.deserted = asyncio.Event()  # no client is connected
        self.deserted.set()
        self.draining = False
        self.budget = RetryBudget(self.clock())
        self.idle = Wait(times.idle)
        self.in_head = Wait(times.head)
        self.running = Wait(times.silence)
        self.lingering = Wait(times.linger)
        self.streams: Deadlines[Expiring] = Deadlines(times.silence)
        self.answered: Deadlines[Expiring] = Deadlines(times.linger)  # streams, before their end
        self.whole: Deadlines[Exchange] = Deadlines(times.whole)
        self.limits_whole = times.whole < math.inf

    def check_room(self, peer: str) -> None:
        """Raise Exhausted if no further connection from this address is served."""
        if len(self.clients) >= self.most_clients:
            raise Exhausted(f"The proxy serves {self.most_clients} connections, and no more.")
        most = self.most_of_one
        if most is not None and self.connections[peer] >= most:
            raise Exhausted(f"The proxy serves {most} connections from one address, and no more.")

    def came(self, client: Guest) -> None:
        """Know a client that has connected."""
        self.clients.add(client)
        self.connections[client.peer] += 1
        self.deserted.clear()

    def hands_over(self, client: Guest) -> None:
        """Forget a client whose connection is another's from now on: that one comes at once."""
        self.clients.discard(client)
        self.connections[client.peer] -= 1
        if not self.connections[client.peer]:
            del self.connections[client.peer]

    def went(self, client: Guest) -> None:
        """Forget a client whose connection has ended."""
        if client in self.clients:
            self.hands_over(client)
        if not self.clients:
            self.deserted.set()

    def departed(self, address: BackendAddress) -> None:
        """Close what idles to a backend; also what is about to, when a request of it has ended."""
        self.loop.call_soon(self._close_idle, address)

    def _close_idle(self, address: BackendAddress) -> None:
        for backend in self.pool.purge(address):
            backend.close()

    def sweep(self) -> None:
        """End what has waited too long."""
        now = self.clock()
        for guest in [guest for guest in self.clients if guest.due <= now]:
            if guest.due <= now:  # or one before it has given it more time
                guest.expired()
        for stream in self.streams.expired(now):
            stream.expired()
        for stream in self.answered.expired(now):
            stream.expired()
        for exchange in self.whole.expired(now):
            exchange.late(whole=True)
        self.budget.advance(now)
        for backend in self.pool.expired(now):
            backend.close()
