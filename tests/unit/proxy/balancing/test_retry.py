from __future__ import annotations

import pytest

from arke_proxy.balancing.retry import RetryBudget, may_retry


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"])
def test_idempotent_request_may_be_retried_while_body_is_buffered(method: bytes) -> None:
    assert may_retry(method, sent=True, body_buffered=True)
    assert not may_retry(method, sent=True, body_buffered=False)


@pytest.mark.parametrize("method", [b"POST", b"PATCH", b"PURGE", b"LOCK"])
def test_non_idempotent_request_may_be_retried_only_if_unsent(method: bytes) -> None:
    assert not may_retry(method, sent=True, body_buffered=True)
    assert may_retry(method, sent=False, body_buffered=True)
    assert not may_retry(method, sent=False, body_buffered=False)


def test_retry_budget_always_allows_three_at_once() -> None:
    budget = RetryBudget(0.0)
    assert [budget.acquire() for _ in range(4)] == [True, True, True, False]
    budget.release()
    assert [budget.acquire() for _ in range(2)] == [True, False]


def test_retry_budget_is_a_fifth_of_requests() -> None:
    budget = RetryBudget(0.0)
    budget.requests = 100
    assert [budget.acquire() for _ in range(21)] == [True] * 20 + [False]


def test_retry_budget_forgets_requests_after_ten_seconds() -> None:
    budget = RetryBudget(0.0)
    budget.requests = 100
    budget.advance(5.0)
    assert [budget.acquire() for _ in range(21)] == [True] * 20 + [False]
    budget.advance(10.0)
    assert not budget.acquire()  # the twenty retries are recent, and have not ended
    budget.requests = 105
    assert budget.acquire()
    budget.advance(20.0)
    assert not budget.acquire()
    for _ in range(19):
        budget.release()
    assert budget.acquire()
