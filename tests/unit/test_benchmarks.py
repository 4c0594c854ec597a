# ruff: noqa: RUF001 - the sign of multiplication

from __future__ import annotations

import pytest
from benchmarks import rounds, table
from benchmarks.measure import RATE, Comparison, Figures, Measure, Row, Run, Target

ROW = Row("Requests", "rate", RATE, Target("≥", 2.0, "ratio"))


def runs(side: str, *values: float, order: list[str]) -> Run:
    """Return a run that gives one value after the other."""
    left = iter(values)

    def run(_: float) -> Figures:
        order.append(side)
        return {"rate": next(left)}

    return run


def taken(row: Row = ROW, *, competitor: bool = True, once: bool = False) -> list[rounds.Outcome]:
    arke = runs("Arke", 9000, 3000, 6000, order=[])
    other = runs("NATS", 1000, 2000, 3000, order=[]) if competitor else None
    measure = Measure("req", (row,), arke, other, once=once)
    return rounds.run_rounds(measure, "NATS", rounds=3, seconds=1.0, log=lambda _: None)


def test_rounds_alternate_and_medians_are_compared() -> None:
    order: list[str] = []
    lines: list[str] = []
    arke, nats = runs("Arke", 9e3, 3e3, 6e3, order=order), runs("NATS", 1e3, 2e3, 3e3, order=order)
    measure = Measure("req", (ROW,), arke, nats)
    (outcome,) = rounds.run_rounds(measure, "NATS", rounds=3, seconds=1.0, log=lines.append)
    assert order == ["Arke", "NATS"] * 3
    assert lines[:2] == ["req, round 1, Arke: 9.0 k/s", "req, round 1, NATS: 1.0 k/s"]
    assert outcome.competitor
    assert (outcome.arke.median, outcome.competitor.median, outcome.ratio) == (6000, 2000, 3.0)
    assert outcome.reached is True


def test_measure_with_once_runs_once() -> None:
    assert taken(once=True)[0].arke.values == (9000,)


@pytest.mark.parametrize(
    ("target", "reached"),
    [
        (Target("≥", 3.0, "ratio"), True),
        (Target("≥", 3.1, "ratio"), False),
        (Target("≤", 6000.0, "figure"), True),
        (Target("≤", 5999.0, "figure"), False),
        (None, None),
    ],
)
def test_target_is_reached_at_its_limit(target: Target | None, *, reached: bool | None) -> None:
    (outcome,) = taken(Row("Requests", "rate", RATE, target))
    assert outcome.reached is reached


def test_table_has_ratio_in_last_column() -> None:
    comparison = Comparison("Messages", (), competitor="NATS")
    missed = Row("Slow", "rate", RATE, Target("≥", 7000.0, "figure"))
    assert table.markdown(comparison, [*taken(), *taken(missed)]) == (
        "| measure | Arke | NATS | target | ratio |\n"
        "| --- | ---: | ---: | --- | ---: |\n"
        "| Requests | 6.0 k/s (3.0 to 9.0) | 2.0 k/s (1.0 to 3.0) | ≥ 2.00 ×, reached | 3.00 × |\n"
        "| Slow | 6.0 k/s (3.0 to 9.0) | 2.0 k/s (1.0 to 3.0) | ≥ 7.0 k/s, **missed** | 3.00 × |\n"
    )


def test_table_without_competitor_has_no_ratio() -> None:
    (outcome,) = taken(Row("Requests", "rate", RATE), competitor=False, once=True)
    assert table.markdown(Comparison("Alone", ()), [outcome]) == (
        "| measure | Arke | target |\n| --- | ---: | --- |\n| Requests | 9.0 k/s |  |\n"
    )
    (values,) = table.values([outcome])
    assert (values["competitor"], values["ratio"], values["reached"]) == (None, None, None)
