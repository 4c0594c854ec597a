"""What one run of the benchmark found."""

from __future__ import annotations

import json
from array import array
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Result:
    """Figures of the measured time; the warm-up is not in them.

    `rate` is what the receivers saw per second: replies of requests, deliveries of publishing and
    broadcasts, messages of a tunnel, all receivers together; `received` is how many, each of `size`
    octets. Latencies are microseconds, from a call to its reply, or from sending to the receiver's
    handler. `drops` are deliveries that never came.
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
        """Whether the figures may be believed."""
        return not self.errors and not self.drops

    @property
    def megabytes(self) -> float:
        """Of bodies, a second: millions of octets."""
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
