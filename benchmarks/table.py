"""Format outcomes as a Markdown table and as values for JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.measure import TIMES, Comparison, Unit
from benchmarks.rounds import Outcome, Samples

_MARKS = {None: "", True: ", reached", False: ", **missed**"}


def markdown(comparison: Comparison, outcomes: Sequence[Outcome]) -> str:
    """Return the table of one comparison: medians, with the lowest and highest round."""
    header = ["measure", "Arke", "target"]
    rule = ["---", "---:", "---"]
    if comparison.competitor:
        header = ["measure", "Arke", comparison.competitor, "target", "ratio"]
        rule = ["---", "---:", "---:", "---", "---:"]
    lines = [header, rule, *(_cells(outcome) for outcome in outcomes)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def values(outcomes: Sequence[Outcome]) -> Iterator[dict[str, Any]]:
    """Yield the values of each row for JSON, without unit conversion."""
    for outcome in outcomes:
        row = outcome.row
        yield {
            "measure": row.title,
            "figure": row.figure,
            "arke": list(outcome.arke.values),
            "competitor": list(outcome.competitor.values) if outcome.competitor else None,
            "ratio": outcome.ratio,
            "target": f"{row.target.of} {row.target.relation} {row.target.limit}"
            if row.target
            else None,
            "reached": outcome.reached,
        }


def _cells(outcome: Outcome) -> Iterator[str]:
    row = outcome.row
    yield row.title
    yield _median_and_range(outcome.arke, row.unit)
    if outcome.competitor:
        yield _median_and_range(outcome.competitor, row.unit)
    yield _target(outcome)
    if outcome.ratio is not None:
        yield TIMES.show(outcome.ratio)


def _target(outcome: Outcome) -> str:
    target = outcome.row.target
    if target is None:
        return ""
    unit = outcome.row.unit if target.of == "figure" else TIMES
    return f"{target.relation} {unit.show(target.limit)}{_MARKS[outcome.reached]}"


def _median_and_range(samples: Samples, unit: Unit) -> str:
    median = unit.show(samples.median)
    if len(samples.values) == 1:
        return median
    low, high = unit.number(min(samples.values)), unit.number(max(samples.values))
    return f"{median} ({low} to {high})"
