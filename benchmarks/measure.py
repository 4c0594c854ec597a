"""What can be measured, in which unit, and how good is good enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

Figures = Mapping[str, float]
Run = Callable[[float], Figures]
"""One run: takes the seconds to measure, returns figures by name, raises `BenchError`."""


class BenchError(Exception):
    """Something was lost, refused or late, or did not start: there is no figure to show."""


@dataclass(frozen=True, slots=True)
class Unit:
    """How a figure is shown: `scale` of it make one `name`."""

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
TIMES = Unit("×", digits=2)  # noqa: RUF001 - not the letter


@dataclass(frozen=True, slots=True)
class Bar:
    """What to reach: by Arke's own figure, or by its ratio to the peer's."""

    relation: Literal["≥", "≤"]
    limit: float
    of: Literal["figure", "ratio"]

    def reached(self, value: float) -> bool:
        return value >= self.limit if self.relation == "≥" else value <= self.limit


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a figure that a measure's runs return, and its bar."""

    title: str
    figure: str
    unit: Unit
    bar: Bar | None = None


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing to run, on Arke and where there is one on the peer, and what to show of it."""

    name: str
    rows: tuple[Row, ...]
    arke: Run
    peer: Run | None = None
    once: bool = False
    """One long run instead of rounds."""


@dataclass(frozen=True, slots=True)
class Pairing:
    """Measures that share a table; `peer` heads the column beside Arke's."""

    title: str
    measures: tuple[Measure, ...]
    peer: str | None = None
    prepare: Callable[[], dict[str, str]] = dict
    """Returns the versions of the peer; raises `BenchError`, with the mend, where it is missing."""
