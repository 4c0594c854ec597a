"""Messages compared with NATS: one relay or server, 128 bytes, one process per receiver."""

from __future__ import annotations

from benchmarks import nats_server
from benchmarks.loads import arke, nats
from benchmarks.measure import MICROSECONDS, RATE, Comparison, Measure, Row, Target

ONE = ("--inflight", "1")
MANY = ("--inflight", "64")
FOUR = ("--members", "4")

COMPARISON = Comparison(
    title="Messages, compared with NATS",
    competitor="NATS",
    prepare=nats_server.prepare,
    measures=(
        Measure(
            "request-1",
            (
                Row(
                    "request, one at a time, p50",
                    "p50_us",
                    MICROSECONDS,
                    Target("≤", 0.55, "ratio"),
                ),
                Row("request, one at a time, p99", "p99_us", MICROSECONDS),
                Row("request, one at a time", "rate", RATE),
            ),
            arke=arke("request", *ONE),
            competitor=nats("request", *ONE),
        ),
        Measure(
            "request-64",
            (
                Row("request, 64 in flight", "rate", RATE, Target("≥", 3.5, "ratio")),
                Row("request, 64 in flight, p50", "p50_us", MICROSECONDS),
                Row("request, 64 in flight, p99", "p99_us", MICROSECONDS),
            ),
            arke=arke("request", *MANY),
            competitor=nats("request", *MANY),
        ),
        Measure(
            "publish-1",
            (Row("publish to 1 subscriber", "rate", RATE, Target("≥", 3, "ratio")),),
            arke=arke("publish"),
            competitor=nats("publish"),
        ),
        Measure(
            "publish-4",
            (Row("publish to 4 subscribers, deliveries", "rate", RATE),),
            arke=arke("publish", *FOUR),
            competitor=nats("publish", *FOUR),
        ),
        Measure(
            "broadcast-4",
            (Row("broadcast to 4 members, deliveries", "rate", RATE, Target("≥", 3, "ratio")),),
            arke=arke("broadcast", *FOUR),
            competitor=nats("broadcast", *FOUR),
        ),
    ),
)
