"""Types of the benchmarks: measures, units and targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

Figures = Mapping[str, float]
Run = Callable[[float], Figures]
"""One run: takes its length in seconds; returns figures by name. Raises `BenchError`."""


class BenchError(Exception):
    """A message was lost, refused or late, or a process did not start: there is no result."""


@dataclass(frozen=True, slots=True)
class Unit:
    """How to show a figure: divided by `scale`, with the unit's `name`."""

    name: str
    scale: float = 1.0
    digits: int = 1

    def number(self, value: float) -> str:
        return f"{value / self.scale:.{self.digits}f}"

    def show(self, value: float) -> str:
        return f"{self.number(value)} {self.name}"


RATE = Unit("k/s", 1000.0)
MICROSECONDS = Unit("µs", digits=0)
SECONDS = Unit("s", digits=2)
MEGABYTES = Unit("MB", 1e6)
MEGABYTES_PER_SECOND = Unit("MB/s", 1e6, 0)
MILLISECONDS = Unit("ms", 1000.0)
TIMES = Unit("×", digits=2)  # noqa: RUF001 - the multiplication sign


@dataclass(frozen=True, slots=True)
class Target:
    """A target for Arke's figure, or for its ratio to the competitor's figure."""

    relation: Literal["≥", "≤"]
    limit: float
    of: Literal["figure", "ratio"]

    def reached(self, value: float) -> bool:
        return value >= self.limit if self.relation == "≥" else value <= self.limit


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table: a figure that a measure's runs return, and its target."""

    title: str
    figure: str
    unit: Unit
    target: Target | None = None


@dataclass(frozen=True, slots=True)
class Measure:
    """One benchmark of Arke, and of the competitor if there is one, with its table rows."""

    name: str
    rows: tuple[Row, ...]
    arke: Run
    competitor: Run | None = None
    once: bool = False
    """Run once instead of in rounds."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Measures that share a table; `competitor` is the title of the second column."""

    title: str
    measures: tuple[Measure, ...]
    competitor: str | None = None
    prepare: Callable[[], dict[str, str]] = dict
    """Returns the competitor's versions. Raises `BenchError` with the fix."""
