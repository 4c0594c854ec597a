"""Measure requests: concurrent callers, each sends its next request after the reply."""

from __future__ import annotations

import asyncio
import time
from array import array

import arke
from arke.cli.bench.result import Result, percentile


class _Outcomes:
    """The outcomes of the requests; latencies in nanoseconds."""

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
    """Keep `inflight` requests pending for `warmup`, then for `seconds`; measure the latter.

    Errors of both phases count, because any error makes the result invalid.
    """
    warm = await _run_callers(mesh, cluster, body, inflight, warmup)
    began = time.perf_counter()
    outcomes = await _run_callers(mesh, cluster, body, inflight, seconds)
    elapsed = time.perf_counter() - began
    replies = len(outcomes.latencies)
    return Result(
        pattern="request",
        size=len(body),
        rate=replies / elapsed,
        p50_us=percentile(outcomes.latencies, 50),
        p99_us=percentile(outcomes.latencies, 99),
        received=replies,
        errors=warm.errors + outcomes.errors,
        first_error=warm.first_error or outcomes.first_error,
    )


async def _run_callers(
    mesh: arke.Mesh, cluster: str, body: bytes, inflight: int, seconds: float
) -> _Outcomes:
    outcomes = _Outcomes()
    until = time.perf_counter_ns() + int(seconds * 1e9)
    async with asyncio.TaskGroup() as callers:
        for _ in range(inflight):
            callers.create_task(_call_until(mesh, cluster, body, until, outcomes))
    return outcomes


async def _call_until(
    mesh: arke.Mesh, cluster: str, body: bytes, until: int, outcomes: _Outcomes
) -> None:
    request, clock, took = mesh.request, time.perf_counter_ns, outcomes.latencies.append
    began = clock()
    while began < until:
        try:
            reply = await request(cluster, body)
        except arke.ArkeError as error:
            outcomes.error(str(error))
            reply = None
        ended = clock()
        if reply == body:
            took(ended - began)
        elif reply is not None:
            outcomes.error("a reply differs from the body of its request")
        began = ended
