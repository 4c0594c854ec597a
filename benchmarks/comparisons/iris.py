"""Iris programs on one Arke relay; the targets are the figures of the original Iris relay."""

from __future__ import annotations

from benchmarks.loads import iris
from benchmarks.measure import MICROSECONDS, RATE, Comparison, Measure, Row, Target

COMPARISON = Comparison(
    title="Programs written for Iris, one relay",
    measures=(
        Measure(
            "iris-1",
            (
                Row(
                    "request, one at a time, p50",
                    "p50_us",
                    MICROSECONDS,
                    Target("≤", 170, "figure"),
                ),
                Row("request, one at a time, p99", "p99_us", MICROSECONDS),
            ),
            arke=iris("request", "--inflight", "1"),
        ),
        Measure(
            "iris-64",
            (
                Row("request, 64 in flight", "rate", RATE, Target("≥", 17_000, "figure")),
                Row("request, 64 in flight, p50", "p50_us", MICROSECONDS),
                Row("request, 64 in flight, p99", "p99_us", MICROSECONDS),
            ),
            arke=iris("request", "--inflight", "64"),
        ),
        Measure(
            "iris-attach",
            (
                Row("attach, register and detach", "rate", RATE, Target("≥", 1_500, "figure")),
                Row("attach, register and detach, p99", "p99_us", MICROSECONDS),
            ),
            arke=iris("attach"),
        ),
    ),
)
