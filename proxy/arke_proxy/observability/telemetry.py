"""A worker's paperwork: the journal that requests are noted in, and the pages about them."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import Any

from arke_proxy.balancing.routes import Route
from arke_proxy.connections.hub import Hub
from arke_proxy.observability.access_log import AccessLog
from arke_proxy.observability.admin import Admin, Page
from arke_proxy.observability.counters import RequestCounters
from arke_proxy.observability.request_record import NullRecorder, RequestRecord, RequestRecorder
from arke_proxy.processes.worker_ipc import Line

_TICK = 0.1  # seconds between two batches of the access log
_REPORTS = 10  # ticks between two reports to the master
_JSON = "application/json"


class TeeRecorder:
    """Two journals."""

    __slots__ = ("_first", "_second")

    def __init__(self, first: RequestRecorder, second: RequestRecorder) -> None:
        self._first = first
        self._second = second

    def record(self, record: RequestRecord) -> None:
        self._first.record(record)
        self._second.record(record)


class Telemetry:
    """Counts if there are to be pages, logs if there is a log, and costs nothing otherwise."""

    def __init__(self, line: Line, access_log: AccessLog | None, *, pages: bool) -> None:
        self._line = line
        self._access_log = access_log
        self._counts = RequestCounters() if pages else None
        self._admin: Admin | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._hub: Hub
        self._routes: Iterable[Route]
        self._fault: Callable[[], Awaitable[str]]
        self.recorder: RequestRecorder = self._counts or access_log or NullRecorder()
        if self._counts and access_log:
            self.recorder = TeeRecorder(self._counts, access_log)

    async def open(
        self,
        hub: Hub,
        routes: Iterable[Route],
        fault: Callable[[], Awaitable[str]],
        sock: socket.socket | None,
    ) -> None:
        """Begin. `fault` says why no request can be answered; `sock` is the admin listener."""
        self._hub, self._routes, self._fault = hub, routes, fault
        if self._access_log:
            self._line.on_reopen(self._access_log.reopen)
        if self._counts and sock:
            from arke_proxy.observability import metrics  # noqa: PLC0415 — slow to import

            async def prometheus() -> Page:
                body = metrics.page(await self._totals())
                return Page(HTTPStatus.OK, body, metrics.CONTENT_TYPE)

            pages: dict[bytes, Callable[[], Awaitable[Page]]] = {
                b"/-/healthz": self._health,
                b"/-/readyz": self._readiness,
                b"/-/backends": self._backends,
                b"/-/metrics": prometheus,
            }
            self._admin = Admin(pages)
            await self._admin.start(sock)
        self._ticking = hub.loop.create_task(self._tick())

    def leave(self) -> None:
        """Show no more pages: those who stay do."""
        if self._admin:
            self._admin.stop()

    def close(self) -> None:
        """Write and report the last."""
        self.leave()
        if self._ticking:
            self._ticking.cancel()
            self._report()
        if self._access_log:
            self._access_log.close()

    async def _tick(self) -> None:
        ticks = 0
        while True:
            await asyncio.sleep(_TICK)
            ticks += 1
            if self._access_log:
                self._access_log.flush()
            if ticks % _REPORTS == 0:
                self._report()

    def _report(self) -> None:
        if self._counts:
            self._line.report(self._now())

    def _now(self) -> dict[str, Any]:
        assert self._counts
        counters = self._counts.report()
        if self._access_log:
            counters["dropped"] = self._access_log.dropped
        state = "retired" if self._hub.draining else "serving"
        return {
            "counters": counters,
            "gauges": {"connections": len(self._hub.clients), f"workers\x1f{state}": 1},
            "backends": statuses(self._routes),
        }

    async def _totals(self) -> dict[str, Any]:
        """Return the numbers of all workers; others' are a second old at most."""
        self._report()
        totals = await self._line.totals()
        if totals is None:  # the master is away, and this worker about to follow
            return self._now() | {"backends": {}}
        return totals

    async def _health(self) -> Page:
        return Page(HTTPStatus.OK, b"OK\n")

    async def _readiness(self) -> Page:
        if fault := await self._fault():
            return Page(HTTPStatus.SERVICE_UNAVAILABLE, f"{fault}\n".encode())
        return Page(HTTPStatus.OK, b"OK\n")

    async def _backends(self) -> Page:
        totals = await self._totals()
        workers = [{"worker": int(w), "backends": b} for w, b in totals["backends"].items()]
        body = json.dumps({"workers": workers}, indent=2).encode() + b"\n"
        return Page(HTTPStatus.OK, body, _JSON)


def statuses(routes: Iterable[Route]) -> list[dict[str, Any]]:
    """Show the backends of each cluster as their chooser sees them."""
    return [
        {
            "cluster": route.cluster,
            "address": str(one.address),
            "weight": one.weight,
            "outstanding": one.outstanding,
            "out": one.out,
            "used": one.used,
        }
        for route in routes
        for one in route.balancer.statuses()
    ]
