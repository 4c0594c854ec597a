"""What a relay takes: at rest, and after a million requests."""

from __future__ import annotations

import time

from benchmarks.loads import arke_bench
from benchmarks.measure import MEGABYTES, Bar, Figures, Measure, Pairing, Row
from benchmarks.relays import network

SETTLED = 2.0
WARM_UP_REQUESTS = 100_000
REQUESTS = 1_000_000
BURST = 5.0


def resident(_: float) -> Figures:
    """Return resident memory in bytes at each stage; takes as long as a million requests do."""
    with network() as relays, relays.relay("127.0.0.2") as relay:
        relay.ready()
        time.sleep(SETTLED)
        rest = relay.resident()
        # Pools and code paths that any use fills are not growth.
        _requests(relay.port, WARM_UP_REQUESTS)
        before = relay.resident()
        _requests(relay.port, REQUESTS)
        after = relay.resident()
    return {"rest": rest, "before": before, "after": after, "growth": after - before}


def _requests(port: int, number: int) -> None:
    answered = 0.0
    while answered < number:
        answered += arke_bench(port, "request", BURST, "--inflight", "64")["received"]


PAIRING = Pairing(
    title="Resident memory of a relay",
    measures=(
        Measure(
            "memory",
            (
                Row("at rest", "rest", MEGABYTES, Bar("≤", 60e6, "figure")),
                Row("after the first requests", "before", MEGABYTES),
                Row("after a million more", "after", MEGABYTES),
                Row("growth over that million", "growth", MEGABYTES, Bar("≤", 1e6, "figure")),
            ),
            arke=resident,
            once=True,
        ),
    ),
)
