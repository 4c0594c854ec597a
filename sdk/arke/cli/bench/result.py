"""The result of one benchmark run."""

from __future__ import annotations

import json
from array import array
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Result:
    """The figures of the measured time, without the warm-up.

    `rate` is per second: replies to requests, deliveries of events or broadcasts, or messages of a
    tunnel, over all receivers. `received` is their number, each of `size` bytes. Latencies are
    microseconds, from a request to its reply, or from the sender to the receiver's handler. `drops`
    are messages that were not delivered.
    """

    pattern: str
    size: int
    rate: float
    p50_us: int
    p99_us: int
    received: int
    errors: int = 0
    drops: int = 0
    first_error: str = ""

    @property
    def clean(self) -> bool:
        """Whether the result is valid."""
        return not self.errors and not self.drops

    @property
    def megabytes(self) -> float:
        """Megabytes of bodies per second."""
        return self.rate * self.size / 1e6

    def as_json(self) -> str:
        figures = {"rate": round(self.rate, 1), "mb_s": round(self.megabytes, 1)}
        return json.dumps(asdict(self) | figures)

    def as_line(self) -> str:
        return (
            f"{self.pattern}  {self.rate:,.0f}/s   {self.megabytes:,.1f} MB/s   "
            f"p50 {self.p50_us:,} µs   p99 {self.p99_us:,} µs   "
            f"{self.errors} errors   {self.drops} drops"
        )


def percentile(samples: array[int], percent: int) -> int:
    """Return the nearest-rank percentile of nanoseconds, in microseconds; 0 without samples."""
    if not samples:
        return 0
    rank = -(-len(samples) * percent // 100)
    return sorted(samples)[max(rank, 1) - 1] // 1000
