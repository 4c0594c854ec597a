"""What every connection of the proxy shares."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from arke_proxy.back_ends.pool import Pool
from arke_proxy.choosing.routes import Routes
from arke_proxy.complaints import Complaints
from arke_proxy.deadlines import Deadlines

if TYPE_CHECKING:
    from arke_proxy.back_ends.connection import BackEnd
    from arke_proxy.clients.http1 import Client

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


_POOLED_PER_BACK_END = 128


class Hub:
    """One proxy's parts, and the deadlines of its connections."""

    __slots__ = (
        "clients",
        "complaints",
        "deserted",
        "draining",
        "idle",
        "in_head",
        "lingering",
        "loop",
        "most_clients",
        "pool",
        "routes",
        "running",
        "times",
    )

    def __init__(
        self, routes: Routes, times: Times, loop: asyncio.AbstractEventLoop, most_clients: int
    ) -> None:
        self.routes = routes
        self.times = times
        self.loop = loop
        self.most_clients = most_clients  # connected at once
        self.pool: Pool[BackEnd] = Pool(_POOLED_PER_BACK_END, times.pooled)
        self.complaints = Complaints(log, loop.time)
        self.clients: set[Client] = set()
        self.deserted = asyncio.Event()  # no client is connected
        self.deserted.set()
        self.draining = False
        self.idle: Deadlines[Client] = Deadlines(times.idle)
        self.in_head: Deadlines[Client] = Deadlines(times.head)
        self.running: Deadlines[Client] = Deadlines(times.silence)
        self.lingering: Deadlines[Client] = Deadlines(times.linger)

    def came(self, client: Client) -> None:
        """Know a client that has connected."""
        self.clients.add(client)
        self.deserted.clear()

    def went(self, client: Client) -> None:
        """Forget a client whose connection has ended."""
        self.clients.discard(client)
        if not self.clients:
            self.deserted.set()

    def sweep(self) -> None:
        """End what has waited too long."""
        now = self.loop.time()
        for deadlines in (self.idle, self.in_head, self.running, self.lingering):
            for client in deadlines.expired(now):
                client.expired()
        for back_end in self.pool.expired(now):
            back_end.close()
