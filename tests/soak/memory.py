"""How much memory each process takes as time goes by, and whether that is flat."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from statistics import median

MIB = 1024 * 1024

TOLERANCE = 0.05
SLACK = 2 * MIB
"""A process is flat when the median of its last quarter is not over that of its third by more than
this share and this much: pools fill for some minutes, and what a moment's burst leaves behind is
neither a leak."""

ENOUGH = 240
"""Samples under which a life was too short to say."""


class Life:
    """One process, sampled at equal intervals from its beginning to its end."""

    def __init__(self, name: str, *, steady: bool) -> None:
        self.name = name
        self.steady = steady
        """It lives through all: whether it is flat counts."""
        self.samples = array("Q")

    def quarters(self) -> list[float]:
        """The median of each quarter of its life, in octets."""
        samples, count = self.samples, len(self.samples)
        return [
            median(samples[count * quarter // 4 : count * (quarter + 1) // 4])
            for quarter in range(4)
        ]

    @property
    def flat(self) -> bool | None:
        """None: it was too short to say."""
        if len(self.samples) < ENOUGH:
            return None
        _, _, third, last = self.quarters()
        return last <= third * (1 + TOLERANCE) + SLACK


def table(lives: Iterable[Life]) -> list[str]:
    """A line for each life that can be judged, and one for all the others."""
    judged: list[Life] = []
    others: list[Life] = []
    for life in lives:
        (judged if life.flat is not None else others).append(life)
    lines = ["resident MiB, medians of the quarters    1      2      3      4   most"]
    for life in judged:
        numbers = "".join(f"{value / MIB:7.1f}" for value in life.quarters())
        verdict = "flat" if life.flat else "NOT FLAT"
        lines.append(f"  {life.name:34}{numbers}{max(life.samples) / MIB:7.1f}  {verdict}")
    if len(lines) == 1:
        lines.append("  no life was long enough to say")
    if most := _most(others):
        lines.append(f"  and {len(others)} shorter lives, none over {most / MIB:.1f} MiB")
    return lines


def _most(lives: Sequence[Life]) -> int:
    return max((max(life.samples, default=0) for life in lives), default=0)
