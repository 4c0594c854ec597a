from __future__ import annotations

import pytest

from arke_proxy.balancing.retry import RetryBudget, may_retry


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"])
def test_what_means_the_same_twice_may_go_again_while_it_is_whole(method: bytes) -> None:
    assert may_retry(method, sent=True, body_at_hand=True)
    assert not may_retry(method, sent=True, body_at_hand=False)


@pytest.mark.parametrize("method", [b"POST", b"PATCH", b"PURGE", b"LOCK"])
def test_anything_else_may_not(method: bytes) -> None:
    assert not may_retry(method, sent=True, body_at_hand=True)
    assert may_retry(method, sent=False, body_at_hand=True)
    assert not may_retry(method, sent=False, body_at_hand=False)


def test_three_at_once_may_always_go_again() -> None:
    budget = RetryBudget(0.0)
    assert [budget.begin() for _ in range(4)] == [True, True, True, False]
    budget.end()
    assert [budget.begin() for _ in range(2)] == [True, False]


def test_a_fifth_of_the_traffic_may_go_again() -> None:
    budget = RetryBudget(0.0)
    budget.requests = 100
    assert [budget.begin() for _ in range(21)] == [True] * 20 + [False]


def test_what_is_long_ago_counts_no_more() -> None:
    budget = RetryBudget(0.0)
    budget.requests = 100
    budget.turn(5.0)
    assert [budget.begin() for _ in range(21)] == [True] * 20 + [False]
    budget.turn(10.0)
    assert not budget.begin()  # those twenty were a moment ago, and still run
    budget.requests = 105
    assert budget.begin()
    budget.turn(20.0)
    assert not budget.begin()
    for _ in range(19):
        budget.end()
    assert budget.begin()
