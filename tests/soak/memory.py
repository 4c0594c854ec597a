"""Record the memory of each process over time, and check that it does not grow."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from statistics import median

MIB = 1024 * 1024

TOLERANCE = 0.05
SLACK = 2 * MIB
"""Memory is flat if the median of the last quarter exceeds that of the third by at most this share
plus this size. The first half is ignored because pools fill for some minutes."""

MIN_SAMPLES = 240
"""A record with fewer samples is too short to judge."""


class MemoryRecord:
    """The resident memory of one process, sampled at equal intervals."""

    def __init__(self, name: str, *, steady: bool) -> None:
        self.name = name
        self.steady = steady
        """The process is never restarted, so that growth is a finding."""
        self.samples = array("Q")

    def quarters(self) -> list[float]:
        """Return the median of each quarter of the record, in bytes."""
        samples, count = self.samples, len(self.samples)
        return [
            median(samples[count * quarter // 4 : count * (quarter + 1) // 4])
            for quarter in range(4)
        ]

    @property
    def flat(self) -> bool | None:
        """None: too short to judge."""
        if len(self.samples) < MIN_SAMPLES:
            return None
        _, _, third, last = self.quarters()
        return last <= third * (1 + TOLERANCE) + SLACK


def table(records: Iterable[MemoryRecord]) -> list[str]:
    """Return a line for each record that is long enough, and one for all others."""
    judged: list[MemoryRecord] = []
    others: list[MemoryRecord] = []
    for record in records:
        (judged if record.flat is not None else others).append(record)
    lines = ["resident MiB, medians of the quarters    1      2      3      4   most"]
    for record in judged:
        numbers = "".join(f"{value / MIB:7.1f}" for value in record.quarters())
        verdict = "flat" if record.flat else "NOT FLAT"
        lines.append(f"  {record.name:34}{numbers}{max(record.samples) / MIB:7.1f}  {verdict}")
    if len(lines) == 1:
        lines.append("  no record was long enough")
    if most := _most(others):
        lines.append(f"  and {len(others)} shorter records, none over {most / MIB:.1f} MiB")
    return lines


def _most(records: Sequence[MemoryRecord]) -> int:
    return max((max(record.samples, default=0) for record in records), default=0)
