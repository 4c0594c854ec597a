"""Resident memory of a relay: at rest, and after a million requests."""

from __future__ import annotations

import time

from benchmarks.loads import arke_bench
from benchmarks.measure import MEGABYTES, Comparison, Figures, Measure, Row, Target
from benchmarks.relays import Relay, network

SETTLED = 2.0
WARM_UP = 3.0
REQUESTS = 1_000_000
MARGIN = 1.1


def resident(_: float) -> Figures:
    """Return the resident memory at each stage, in bytes; ignores the given length."""
    with network() as relays, relays.relay("127.0.0.2") as relay:
        relay.ready()
        time.sleep(SETTLED)
        rest = relay.resident()
        # The first use fills pools and caches, which is not growth.
        rate = _requests(relay, WARM_UP)["rate"]
        before = relay.resident()
        answered = 0.0
        while answered < REQUESTS:
            answered += _requests(relay, (REQUESTS - answered) / rate * MARGIN)["received"]
        after = relay.resident()
    return {"rest": rest, "before": before, "after": after, "growth": after - before}


def _requests(relay: Relay, seconds: float) -> Figures:
    return arke_bench(relay.port, "request", seconds, "--inflight", "64")


COMPARISON = Comparison(
    title="Resident memory of a relay, one long run",
    measures=(
        Measure(
            "memory",
            (
                Row("at rest", "rest", MEGABYTES, Target("≤", 60e6, "figure")),
                Row("after the first requests", "before", MEGABYTES),
                Row("after a million more", "after", MEGABYTES),
                Row("growth over that million", "growth", MEGABYTES, Target("≤", 1e6, "figure")),
            ),
            arke=resident,
            once=True,
        ),
    ),
)
