"""Programs written for Iris on one relay of ours; the bars are the figures of Iris' own relay."""

from __future__ import annotations

from benchmarks.loads import iris
from benchmarks.measure import MICROSECONDS, RATE, Bar, Measure, Pairing, Row

PAIRING = Pairing(
    title="Programs written for Iris, one relay",
    measures=(
        Measure(
            "iris-1",
            (
                Row("request, one at a time, p50", "p50_us", MICROSECONDS, Bar("≤", 170, "figure")),
                Row("request, one at a time, p99", "p99_us", MICROSECONDS),
            ),
            arke=iris("request", "--inflight", "1"),
        ),
        Measure(
            "iris-64",
            (
                Row("request, 64 in flight", "rate", RATE, Bar("≥", 17_000, "figure")),
                Row("request, 64 in flight, p50", "p50_us", MICROSECONDS),
                Row("request, 64 in flight, p99", "p99_us", MICROSECONDS),
            ),
            arke=iris("request", "--inflight", "64"),
        ),
        Measure(
            "iris-attach",
            (
                Row("attach, register and leave", "rate", RATE, Bar("≥", 1_500, "figure")),
                Row("attach, register and leave, p99", "p99_us", MICROSECONDS),
            ),
            arke=iris("attach"),
        ),
    ),
)
