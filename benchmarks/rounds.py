"""Run rounds alternately: Arke, competitor, Arke, …; compute medians."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.measure import Figures, Measure, Row


@dataclass(frozen=True, slots=True)
class Samples:
    """The values of one figure in all rounds."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The measured values of one row."""

    row: Row
    arke: Samples
    competitor: Samples | None

    @property
    def ratio(self) -> float | None:
        return self.arke.median / self.competitor.median if self.competitor else None

    @property
    def reached(self) -> bool | None:
        """Whether the target was reached; None without a target."""
        if self.row.target is None:
            return None
        value = self.arke.median if self.row.target.of == "figure" else self.ratio
        assert value is not None, "a target for a ratio needs a competitor"
        return self.row.target.reached(value)


def run_rounds(
    measure: Measure,
    competitor: str | None,
    *,
    rounds: int,
    seconds: float,
    log: Callable[[str], None],
) -> list[Outcome]:
    """Run `measure`, and return one outcome for each row; `log` gets a line for each run."""
    ours: list[Figures] = []
    theirs: list[Figures] = []
    for number in range(1, 2 if measure.once else rounds + 1):
        for side, run, figures in (
            ("Arke", measure.arke, ours),
            (competitor, measure.competitor, theirs),
        ):
            if run is None:
                continue
            figures.append(run(seconds))
            shown = ", ".join(row.unit.show(figures[-1][row.figure]) for row in measure.rows)
            log(f"{measure.name}, round {number}, {side}: {shown}")
    return [
        Outcome(row, _samples(row, ours), _samples(row, theirs) if theirs else None)
        for row in measure.rows
    ]


def _samples(row: Row, figures: list[Figures]) -> Samples:
    return Samples(tuple(figure[row.figure] for figure in figures))
