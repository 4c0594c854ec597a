"""Measures requests: so many callers, each asking again as soon as it has its reply."""

from __future__ import annotations

import asyncio
import time
from array import array

import arke
from arke.cli.bench.result import Result, percentile


class _Seen:
    """What the callers saw; latencies in nanoseconds."""

    def __init__(self) -> None:
        self.latencies = array("q")
        self.errors = 0
        self.first_error = ""

    def error(self, text: str) -> None:
        self.errors += 1
        self.first_error = self.first_error or text


async def measure(
    mesh: arke.Mesh, cluster: str, *, body: bytes, inflight: int, warmup: float, seconds: float
) -> Result:
    """Keep `inflight` requests under way for `warmup` and then `seconds`; return the latter.

    Errors of both count: after one, the figures say nothing.
    """
    warm = await _ask_for(mesh, cluster, body, inflight, warmup)
    began = time.perf_counter()
    seen = await _ask_for(mesh, cluster, body, inflight, seconds)
    elapsed = time.perf_counter() - began
    replies = len(seen.latencies)
    return Result(
        pattern="request",
        size=len(body),
        rate=replies / elapsed,
        p50_us=percentile(seen.latencies, 50),
        p99_us=percentile(seen.latencies, 99),
        received=replies,
        errors=warm.errors + seen.errors,
        first_error=warm.first_error or seen.first_error,
    )


async def _ask_for(
    mesh: arke.Mesh, cluster: str, body: bytes, inflight: int, seconds: float
) -> _Seen:
    seen = _Seen()
    until = time.perf_counter_ns() + int(seconds * 1e9)
    async with asyncio.TaskGroup() as callers:
        for _ in range(inflight):
            callers.create_task(_ask_until(mesh, cluster, body, until, seen))
    return seen


async def _ask_until(mesh: arke.Mesh, cluster: str, body: bytes, until: int, seen: _Seen) -> None:
    request, clock, took = mesh.request, time.perf_counter_ns, seen.latencies.append
    began = clock()
    while began < until:
        try:
            reply = await request(cluster, body)
        except arke.ArkeError as error:
            seen.error(str(error))
            reply = None
        ended = clock()
        if reply == body:
            took(ended - began)
        elif reply is not None:
            seen.error("a reply was not the body that was sent")
        began = ended
