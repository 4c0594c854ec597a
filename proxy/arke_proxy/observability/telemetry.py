"""A worker's telemetry: counts and logs its requests, reports to the master, serves admin pages."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from http import HTTPStatus
from typing import Any

from arke.program.admin import AdminServer, Page
from arke_proxy.balancing.cluster_balancers import ClusterBalancers
from arke_proxy.balancing.routes import Route
from arke_proxy.context import ProxyContext
from arke_proxy.log import log
from arke_proxy.observability.access_log import AccessLog
from arke_proxy.observability.counters import RequestCounters
from arke_proxy.observability.request_record import NullRecorder, RequestRecord, RequestRecorder
from arke_proxy.processes.worker_ipc import WorkerIpc

_FLUSH_INTERVAL = 0.1  # seconds between two batches of the access log
_FLUSHES_PER_REPORT = 10
MAX_ADMIN_CONNECTIONS = 8
_JSON = "application/json"


class TeeRecorder:
    """Passes each record to two recorders."""

    __slots__ = ("_first", "_second")

    def __init__(self, first: RequestRecorder, second: RequestRecorder) -> None:
        self._first = first
        self._second = second

    def record(self, record: RequestRecord) -> None:
        self._first.record(record)
        self._second.record(record)


class Telemetry:
    """Counts requests if there are admin `pages`, and logs them if there is an access log."""

    def __init__(
        self,
        ipc: WorkerIpc,
        access_log: AccessLog | None,
        *,
        pages: bool,
        admin_names: Sequence[str] = (),
    ) -> None:
        self._admin_names = admin_names
        self._ipc = ipc
        self._access_log = access_log
        self._counters = RequestCounters() if pages else None
        self._admin: AdminServer | None = None
        self._task: asyncio.Task[None] | None = None
        self._context: ProxyContext
        self._balancers: ClusterBalancers
        self.recorder: RequestRecorder = self._counters or access_log or NullRecorder()
        if self._counters and access_log:
            self.recorder = TeeRecorder(self._counters, access_log)

    async def start(
        self, context: ProxyContext, balancers: ClusterBalancers, sock: socket.socket | None
    ) -> None:
        """Start to flush and report; serve the admin pages on the listening socket `sock`."""
        self._context, self._balancers = context, balancers
        if self._access_log:
            self._ipc.on_reopen(self._access_log.reopen)
        if self._counters and sock:
            from arke_proxy.observability import metrics  # noqa: PLC0415 — slow to import

            async def prometheus() -> Page:
                body = metrics.page(await self._totals())
                return Page(HTTPStatus.OK, body, metrics.CONTENT_TYPE)

            pages: dict[str, Callable[[], Awaitable[Page]]] = {
                "/-/healthz": self._health,
                "/-/readyz": self._readiness,
                "/-/backends": self._backends,
                "/-/metrics": prometheus,
            }
            self._admin = AdminServer(pages, log, MAX_ADMIN_CONNECTIONS, self._admin_names)
            await self._admin.serve(sock)
        self._task = context.loop.create_task(self._run())

    async def stop_pages(self) -> None:
        """Stop serving the admin pages; the other workers continue to."""
        if self._admin:
            await self._admin.stop()

    async def close(self) -> None:
        """Send the last report and write the last log lines."""
        await self.stop_pages()
        if self._task:
            self._task.cancel()
            self._report()
        if self._access_log:
            self._access_log.close()

    async def _run(self) -> None:
        flushes = 0
        while True:
            await asyncio.sleep(_FLUSH_INTERVAL)
            flushes += 1
            if self._access_log:
                self._access_log.flush()
            if flushes % _FLUSHES_PER_REPORT == 0:
                self._report()

    def _report(self) -> None:
        if self._counters:
            self._ipc.report(self._snapshot())

    def _snapshot(self) -> dict[str, Any]:
        assert self._counters
        counters = self._counters.report()
        if self._access_log:
            counters["dropped"] = self._access_log.dropped
        state = "retired" if self._context.clients.draining else "serving"
        return {
            "counters": counters,
            "gauges": {"connections": len(self._context.clients), f"workers\x1f{state}": 1},
            "backends": backend_statuses(self._balancers.routes),
        }

    async def _totals(self) -> dict[str, Any]:
        """Return the totals of all workers; those of the others are up to a second old."""
        self._report()
        totals = await self._ipc.totals()
        if totals is None:  # the master has exited, and this worker is about to
            return self._snapshot() | {"backends": {}}
        return totals

    async def _health(self) -> Page:
        return Page.text(HTTPStatus.OK)

    async def _readiness(self) -> Page:
        if reason := await self._balancers.unready_reason():
            return Page.text(HTTPStatus.SERVICE_UNAVAILABLE, reason)
        return Page.text(HTTPStatus.OK)

    async def _backends(self) -> Page:
        totals = await self._totals()
        workers = [{"worker": int(w), "backends": b} for w, b in totals["backends"].items()]
        body = json.dumps({"workers": workers}, indent=2).encode() + b"\n"
        return Page(HTTPStatus.OK, body, _JSON)


def backend_statuses(routes: Iterable[Route]) -> list[dict[str, Any]]:
    """Return the status of each backend of each route, for JSON."""
    return [
        {
            "cluster": route.cluster,
            "address": str(status.address),
            "weight": status.weight,
            "outstanding": status.outstanding,
            "ejected": status.ejected,
            "in_use": status.in_use,
        }
        for route in routes
        for status in route.balancer.statuses()
    ]
