"""Messages beside NATS: one relay or server, 128 bytes, every receiver a process of its own."""

from __future__ import annotations

from benchmarks import nats_server
from benchmarks.loads import arke, nats
from benchmarks.measure import MICROSECONDS, RATE, Bar, Measure, Pairing, Row

ONE = ("--inflight", "1")
MANY = ("--inflight", "64")
FOUR = ("--members", "4")

PAIRING = Pairing(
    title="Messages beside NATS",
    peer="NATS",
    prepare=nats_server.prepare,
    measures=(
        Measure(
            "request-1",
            (
                Row("request, one at a time, p50", "p50_us", MICROSECONDS, Bar("≤", 0.55, "ratio")),
                Row("request, one at a time, p99", "p99_us", MICROSECONDS),
                Row("request, one at a time", "rate", RATE),
            ),
            arke=arke("request", *ONE),
            peer=nats("request", *ONE),
        ),
        Measure(
            "request-64",
            (
                Row("request, 64 in flight", "rate", RATE, Bar("≥", 3.5, "ratio")),
                Row("request, 64 in flight, p50", "p50_us", MICROSECONDS),
                Row("request, 64 in flight, p99", "p99_us", MICROSECONDS),
            ),
            arke=arke("request", *MANY),
            peer=nats("request", *MANY),
        ),
        Measure(
            "publish-1",
            (Row("publish to 1 subscriber", "rate", RATE, Bar("≥", 3, "ratio")),),
            arke=arke("publish"),
            peer=nats("publish"),
        ),
        Measure(
            "publish-4",
            (Row("publish to 4 subscribers, deliveries", "rate", RATE),),
            arke=arke("publish", *FOUR),
            peer=nats("publish", *FOUR),
        ),
        Measure(
            "broadcast-4",
            (Row("broadcast to 4 members, deliveries", "rate", RATE, Bar("≥", 3, "ratio")),),
            arke=arke("broadcast", *FOUR),
            peer=nats("broadcast", *FOUR),
        ),
    ),
)
