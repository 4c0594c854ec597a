from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from arke_proxy.backends.address import BackendAddress
from arke_proxy.balancing.prefetch import Prefetch

ONE, TWO = BackendAddress("127.0.0.1", 1), BackendAddress("127.0.0.1", 2)


def test_rare_requests_prefetch_nothing() -> None:
    prefetch = Prefetch()
    assert [prefetch.count_request(100.0 + second) for second in range(5)] == [0] * 5


def test_second_request_within_50_ms_prefetches() -> None:
    prefetch = Prefetch()
    assert [prefetch.count_request(100.0), prefetch.count_request(100.04)] == [0, 1]


def test_prefetched_answers_are_used_in_order_until_they_expire() -> None:
    prefetch = Prefetch()
    prefetch.add(ONE, 100.0)
    prefetch.add(TWO, 100.04)
    assert prefetch.take((), 100.049) == ONE
    prefetch.add(ONE, 100.045)
    assert prefetch.take((), 100.092) == ONE  # the second answer has expired
    assert prefetch.take((), 100.092) is None


def test_tried_backends_are_skipped() -> None:
    prefetch = Prefetch()
    for address in (ONE, TWO):
        prefetch.add(address, 100.0)
    assert prefetch.take({ONE}, 100.0) == TWO


def test_nothing_is_prefetched_during_a_pause() -> None:
    prefetch = Prefetch()
    prefetch.pause(100.2)
    assert [prefetch.count_request(100.1) for _ in range(4)] == [0] * 4
    assert sum(prefetch.count_request(100.2) for _ in range(2)) > 0


def test_demand_of_a_second_ago_is_forgotten() -> None:
    prefetch = Prefetch()
    for _ in range(100):
        prefetch.count_request(100.0)
    assert prefetch.count_request(101.0) == 0


def test_prefetching_is_batched_under_load() -> None:
    prefetch = Prefetch()
    batches = []
    for step in range(4000):
        count = prefetch.count_request(100 + step / 20_000)
        batches += [count] * (count > 0)
        prefetch.in_flight += count
        if step >= 500:  # members answer as fast as requests arrive
            prefetch.in_flight -= 1
    assert 3000 < sum(batches) < 4500
    assert len(batches) < 400


@given(st.floats(20, 5000), st.floats(0.0002, 0.015))
def test_requests_rarely_wait_under_steady_load(rate: float, response_time: float) -> None:
    """`rate`: HTTP requests a second. `response_time`: seconds until a member answers."""
    prefetch = Prefetch()
    now, waited, total = 100.0, 0, 0
    pending: list[float] = []  # when each outstanding request to a member is answered
    for step in range(1000):
        now += 1 / rate
        while pending and pending[0] <= now:
            prefetch.in_flight -= 1
            prefetch.add(ONE, pending.pop(0))
        for _ in range(prefetch.count_request(now)):
            prefetch.in_flight += 1
            pending.append(now + response_time)
        if step > 500:
            total += 1
            waited += prefetch.take((), now) is None
        else:
            prefetch.take((), now)
        assert len(prefetch) + prefetch.in_flight <= 1024
    if rate > 100:
        assert waited < total / 20
