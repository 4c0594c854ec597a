"""Requests between two relays over the encrypted link: caller on one, member on the other."""

from __future__ import annotations

from benchmarks.loads import arke_bench
from benchmarks.measure import MICROSECONDS, RATE, Comparison, Figures, Measure, Row, Run, Target
from benchmarks.relays import two_relays


def requests(inflight: int) -> Run:
    """Return a run of requests between the two relays."""

    def run(seconds: float) -> Figures:
        with two_relays() as (near, far):
            where = ("--member-port", str(far.port), "--inflight", str(inflight))
            return arke_bench(near.port, "request", seconds, *where)

    return run


COMPARISON = Comparison(
    title="Two relays, encrypted",
    measures=(
        Measure(
            "hop-1",
            (
                Row(
                    "request, one at a time, p50",
                    "p50_us",
                    MICROSECONDS,
                    Target("≤", 500, "figure"),
                ),
                Row("request, one at a time, p99", "p99_us", MICROSECONDS),
            ),
            arke=requests(1),
        ),
        Measure(
            "hop-64",
            (
                Row("request, 64 in flight", "rate", RATE, Target("≥", 20_000, "figure")),
                Row("request, 64 in flight, p50", "p50_us", MICROSECONDS),
                Row("request, 64 in flight, p99", "p99_us", MICROSECONDS),
            ),
            arke=requests(64),
        ),
    ),
)
