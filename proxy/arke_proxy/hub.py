"""What every connection of the proxy shares."""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Protocol

from arke_proxy.back_ends.pool import Pool
from arke_proxy.choosing.routes import Routes
from arke_proxy.complaints import Complaints
from arke_proxy.deadlines import Deadlines
from arke_proxy.http1.forwarded import Form, Forwarding
from arke_proxy.record import Journal
from arke_proxy.retry import RetryBudget

if TYPE_CHECKING:
    from arke_proxy.back_ends.connection import BackEnd
    from arke_proxy.back_ends.dial import Dialer
    from arke_proxy.exchange import Exchange

log = logging.getLogger("arke.proxy")


@dataclass(frozen=True, slots=True)
class Times:
    """How long the proxy waits, in seconds."""

    silence: float = 60.0  # for a back end to answer, or for a body to move, in either direction
    head: float = 10.0  # from a head's first byte to its last
    idle: float = 75.0  # a client's connection between requests; longer than browsers reuse one
    linger: float = 2.0  # for a client to read the last answer before its connection is closed
    connect: float = 1.0  # to a back end: a switch away, not an ocean
    pooled: float = 4.0  # an idle connection to a back end; uvicorn and Node close theirs at 5
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

    def part(self) -> None:
        """Close if nothing is going on."""

    def cut(self) -> None:
        """End at once."""


_POOLED_PER_BACK_END = 128


class Hub:
    """One proxy's parts, and the deadlines of its connections."""

    __slots__ = (
        "budget",
        "clients",
        "complaints",
        "deserted",
        "dialer",
        "draining",
        "forwarding",
        "idle",
        "in_head",
        "journal",
        "limits_whole",
        "lingering",
        "loop",
        "most_body",
        "most_clients",
        "pool",
        "routes",
        "running",
        "spliced",
        "times",
        "whole",
    )

    def __init__(
        self,
        routes: Routes,
        times: Times,
        loop: asyncio.AbstractEventLoop,
        most_clients: int,
        journal: Journal,
        dialer: Dialer,
        *,
        forwarding: Forwarding | None = None,
        most_body: int | None = None,
    ) -> None:
        self.routes = routes
        self.journal = journal
        self.dialer = dialer
        self.forwarding = forwarding or Forwarding((), Form.X, Random().getrandbits)  # noqa: S311 — names, no secrets
        self.most_body = most_body  # bytes of a request's body
        self.times = times
        self.loop = loop
        self.most_clients = most_clients  # connected at once
        self.pool: Pool[BackEnd] = Pool(_POOLED_PER_BACK_END, times.pooled)
        self.complaints = Complaints(log, loop.time)
        self.clients: set[Guest] = set()
        self.deserted = asyncio.Event()  # no client is connected
        self.deserted.set()
        self.draining = False
        self.budget = RetryBudget(loop.time())
        self.idle: Deadlines[Expiring] = Deadlines(times.idle)
        self.in_head: Deadlines[Expiring] = Deadlines(times.head)
        self.running: Deadlines[Expiring] = Deadlines(times.silence)
        self.lingering: Deadlines[Expiring] = Deadlines(times.linger)
        self.spliced: Deadlines[Expiring] = Deadlines(times.spliced)
        self.whole: Deadlines[Exchange] = Deadlines(times.whole)
        self.limits_whole = times.whole < math.inf

    def came(self, client: Guest) -> None:
        """Know a client that has connected."""
        self.clients.add(client)
        self.deserted.clear()

    def went(self, client: Guest) -> None:
        """Forget a client whose connection has ended."""
        self.clients.discard(client)
        if not self.clients:
            self.deserted.set()

    def sweep(self) -> None:
        """End what has waited too long."""
        now = self.loop.time()
        for deadlines in (self.idle, self.in_head, self.running, self.lingering, self.spliced):
            for waiting in deadlines.expired(now):
                waiting.expired()
        for exchange in self.whole.expired(now):
            exchange.late(whole=True)
        self.budget.turn(now)
        for back_end in self.pool.expired(now):
            back_end.close()
