# ruff: noqa: RUF001 - the sign of multiplication

from __future__ import annotations

import pytest
from benchmarks import rounds, table
from benchmarks.measure import RATE, Bar, Figures, Measure, Pairing, Row, Run

ROW = Row("Requests", "rate", RATE, Bar("≥", 2.0, "ratio"))


def runs(side: str, *values: float, order: list[str]) -> Run:
    """Return a run that gives one value after the other."""
    left = iter(values)

    def run(_: float) -> Figures:
        order.append(side)
        return {"rate": next(left)}

    return run


def taken(row: Row = ROW, *, peer: bool = True, once: bool = False) -> list[rounds.Outcome]:
    arke = runs("Arke", 9000, 3000, 6000, order=[])
    other = runs("NATS", 1000, 2000, 3000, order=[]) if peer else None
    measure = Measure("req", (row,), arke, other, once=once)
    return rounds.take(measure, "NATS", rounds=3, seconds=1.0, say=lambda _: None)


def test_the_sides_take_turns_and_medians_are_compared() -> None:
    order: list[str] = []
    said: list[str] = []
    arke, nats = runs("Arke", 9e3, 3e3, 6e3, order=order), runs("NATS", 1e3, 2e3, 3e3, order=order)
    measure = Measure("req", (ROW,), arke, nats)
    (outcome,) = rounds.take(measure, "NATS", rounds=3, seconds=1.0, say=said.append)
    assert order == ["Arke", "NATS"] * 3
    assert said[:2] == ["req, round 1, Arke: 9.0 k/s", "req, round 1, NATS: 1.0 k/s"]
    assert outcome.peer
    assert (outcome.arke.median, outcome.peer.median, outcome.ratio) == (6000, 2000, 3.0)
    assert outcome.reached is True


def test_a_long_measure_runs_once() -> None:
    assert taken(once=True)[0].arke.values == (9000,)


@pytest.mark.parametrize(
    ("bar", "reached"),
    [
        (Bar("≥", 3.0, "ratio"), True),
        (Bar("≥", 3.1, "ratio"), False),
        (Bar("≤", 6000.0, "figure"), True),
        (Bar("≤", 5999.0, "figure"), False),
        (None, None),
    ],
)
def test_a_bar_is_reached_at_its_limit(bar: Bar | None, *, reached: bool | None) -> None:
    (outcome,) = taken(Row("Requests", "rate", RATE, bar))
    assert outcome.reached is reached


def test_the_ratio_is_the_last_column() -> None:
    pairing = Pairing("Messages", (), peer="NATS")
    missed = Row("Slow", "rate", RATE, Bar("≥", 7000.0, "figure"))
    assert table.markdown(pairing, [*taken(), *taken(missed)]) == (
        "| measure | Arke | NATS | bar | ratio |\n"
        "| --- | ---: | ---: | --- | ---: |\n"
        "| Requests | 6.0 k/s (3.0 to 9.0) | 2.0 k/s (1.0 to 3.0) | ≥ 2.00 ×, reached | 3.00 × |\n"
        "| Slow | 6.0 k/s (3.0 to 9.0) | 2.0 k/s (1.0 to 3.0) | ≥ 7.0 k/s, **missed** | 3.00 × |\n"
    )


def test_without_a_peer_there_is_no_ratio() -> None:
    (outcome,) = taken(Row("Requests", "rate", RATE), peer=False, once=True)
    assert table.markdown(Pairing("Alone", ()), [outcome]) == (
        "| measure | Arke | bar |\n| --- | ---: | --- |\n| Requests | 9.0 k/s |  |\n"
    )
    (values,) = table.values([outcome])
    assert (values["peer"], values["ratio"], values["reached"]) == (None, None, None)
