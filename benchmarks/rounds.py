"""Alternating rounds: Arke, peer, Arke, peer, …; medians of what they return."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.measure import Figures, Measure, Row


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure of one side, over all rounds."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One row, measured."""

    row: Row
    arke: Spread
    peer: Spread | None

    @property
    def ratio(self) -> float | None:
        return self.arke.median / self.peer.median if self.peer else None

    @property
    def reached(self) -> bool | None:
        """Whether the bar was reached; None where none is set."""
        if self.row.bar is None:
            return None
        value = self.arke.median if self.row.bar.of == "figure" else self.ratio
        assert value is not None, "a bar on a ratio needs a peer"
        return self.row.bar.reached(value)


def take(
    measure: Measure, peer: str | None, *, rounds: int, seconds: float, say: Callable[[str], None]
) -> list[Outcome]:
    """Run `measure`, and return one outcome a row; `say` hears of each run as it ends."""
    ours: list[Figures] = []
    theirs: list[Figures] = []
    for number in range(1, 2 if measure.once else rounds + 1):
        for side, run, figures in (("Arke", measure.arke, ours), (peer, measure.peer, theirs)):
            if run is None:
                continue
            figures.append(run(seconds))
            shown = ", ".join(row.unit.show(figures[-1][row.figure]) for row in measure.rows)
            say(f"{measure.name}, round {number}, {side}: {shown}")
    return [
        Outcome(row, _spread(row, ours), _spread(row, theirs) if theirs else None)
        for row in measure.rows
    ]


def _spread(row: Row, figures: list[Figures]) -> Spread:
    return Spread(tuple(figure[row.figure] for figure in figures))
