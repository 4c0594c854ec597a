from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from arke_proxy.backends.address import BackendAddress
from arke_proxy.balancing.prefetch import Prefetch

ONE, TWO = BackendAddress("127.0.0.1", 1), BackendAddress("127.0.0.1", 2)


def test_a_request_now_and_then_asks_nothing_ahead() -> None:
    ahead = Prefetch()
    assert [ahead.count(100.0 + each) for each in range(5)] == [0] * 5


def test_the_second_request_within_50_ms_does() -> None:
    ahead = Prefetch()
    assert [ahead.count(100.0), ahead.count(100.04)] == [0, 1]


def test_answers_are_used_in_turn_while_they_are_fresh() -> None:
    ahead = Prefetch()
    ahead.keep(ONE, 100.0)
    ahead.keep(TWO, 100.04)
    assert ahead.take((), 100.049) == ONE
    ahead.keep(ONE, 100.045)
    assert ahead.take((), 100.092) == ONE  # the second one has become too old
    assert ahead.take((), 100.092) is None


def test_what_was_tried_is_not_handed_out() -> None:
    ahead = Prefetch()
    for address in (ONE, TWO):
        ahead.keep(address, 100.0)
    assert ahead.take({ONE}, 100.0) == TWO


def test_nothing_is_asked_ahead_during_a_pause() -> None:
    ahead = Prefetch()
    ahead.pause(100.2)
    assert [ahead.count(100.1) for _ in range(4)] == [0] * 4
    assert sum(ahead.count(100.2) for _ in range(2)) > 0


def test_demand_that_ends_is_forgotten() -> None:
    ahead = Prefetch()
    for _ in range(100):
        ahead.count(100.0)
    assert ahead.count(101.0) == 0


def test_under_load_questions_leave_together() -> None:
    ahead = Prefetch()
    asked = []
    for step in range(4000):
        count = ahead.count(100 + step / 20_000)
        asked += [count] * (count > 0)
        ahead.asked += count
        if step >= 500:  # as they are answered, and used
            ahead.asked -= 1
    assert 3000 < sum(asked) < 4500
    assert len(asked) < 400


@given(st.floats(20, 5000), st.floats(0.0002, 0.015))
def test_under_a_steady_load_a_request_rarely_waits(rate: float, answering: float) -> None:
    """`rate` is requests a second, `answering` how long the cluster takes, in seconds."""
    ahead = Prefetch()
    now, waited, total = 100.0, 0, 0
    under_way: list[float] = []  # when they are answered
    for step in range(1000):
        now += 1 / rate
        while under_way and under_way[0] <= now:
            ahead.asked -= 1
            ahead.keep(ONE, under_way.pop(0))
        for _ in range(ahead.count(now)):
            ahead.asked += 1
            under_way.append(now + answering)
        if step > 500:
            total += 1
            waited += ahead.take((), now) is None
        else:
            ahead.take((), now)
        assert len(ahead) + ahead.asked <= 1024
    if rate > 100:
        assert waited < total / 20
