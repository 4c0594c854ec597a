"""Outcomes as a Markdown table, for people, and as plain values, for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.measure import TIMES, Pairing, Unit
from benchmarks.rounds import Outcome, Spread

_MARKS = {None: "", True: ", reached", False: ", **missed**"}


def markdown(pairing: Pairing, outcomes: Sequence[Outcome]) -> str:
    """Return the table of one pairing: medians, and the lowest and highest round behind them."""
    header = ["measure", "Arke", "bar"]
    rule = ["---", "---:", "---"]
    if pairing.peer:
        header = ["measure", "Arke", pairing.peer, "bar", "ratio"]
        rule = ["---", "---:", "---:", "---", "---:"]
    lines = [header, rule, *(_cells(outcome) for outcome in outcomes)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def values(outcomes: Sequence[Outcome]) -> Iterator[dict[str, Any]]:
    """Yield what `json.dumps` takes, one row at a time; figures in the units they came in."""
    for outcome in outcomes:
        row = outcome.row
        yield {
            "measure": row.title,
            "figure": row.figure,
            "arke": list(outcome.arke.values),
            "peer": list(outcome.peer.values) if outcome.peer else None,
            "ratio": outcome.ratio,
            "bar": f"{row.bar.of} {row.bar.relation} {row.bar.limit}" if row.bar else None,
            "reached": outcome.reached,
        }


def _cells(outcome: Outcome) -> Iterator[str]:
    row = outcome.row
    yield row.title
    yield _spread(outcome.arke, row.unit)
    if outcome.peer:
        yield _spread(outcome.peer, row.unit)
    yield _bar(outcome)
    if outcome.ratio is not None:
        yield TIMES.show(outcome.ratio)


def _bar(outcome: Outcome) -> str:
    bar = outcome.row.bar
    if bar is None:
        return ""
    unit = outcome.row.unit if bar.of == "figure" else TIMES
    return f"{bar.relation} {unit.show(bar.limit)}{_MARKS[outcome.reached]}"


def _spread(spread: Spread, unit: Unit) -> str:
    median = unit.show(spread.median)
    if len(spread.values) == 1:
        return median
    low, high = unit.number(min(spread.values)), unit.number(max(spread.values))
    return f"{median} ({low} to {high})"
