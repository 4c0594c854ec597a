"""What the relay counts. Plain numbers: the hot path adds one, whoever looks reads."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping

BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
"""Upper bounds of the latency histogram, in seconds."""


class Counters:
    """Counts since the relay started."""

    __slots__ = (
        "broadcasts",
        "drops",
        "failures",
        "latency",
        "latency_sum",
        "published",
        "retries",
        "tunnels",
    )

    def __init__(self) -> None:
        self.failures: Counter[str] = Counter()
        """Requests of programs here that were not answered, by how they ended."""
        self.drops: Counter[str] = Counter()
        """Messages dropped, by cause."""
        self.retries = 0
        self.broadcasts = 0
        self.published = 0
        self.tunnels = 0
        """TunnelRouter that were opened, through this relay."""
        self.latency = [0] * (len(BUCKETS) + 1)
        self.latency_sum = 0.0

    def replied(self, seconds: float) -> None:
        """A request of a program here was answered, so long after it came."""
        self.latency[bisect_left(BUCKETS, seconds)] += 1
        self.latency_sum += seconds

    @property
    def outcomes(self) -> Mapping[str, int]:
        """Requests of programs here, by how they ended."""
        replied = sum(self.latency)
        return ({"replied": replied} if replied else {}) | self.failures
