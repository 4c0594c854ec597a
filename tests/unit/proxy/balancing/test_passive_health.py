from __future__ import annotations

from arke_proxy.balancing.passive_health import BackendHealth


def test_pauses_double_up_to_a_minute() -> None:
    health, now = BackendHealth(), 100.0
    lengths = []
    assert health.failed(now)
    for _ in range(8):
        lengths.append(health.until - now)
        now = health.until
        health.trial(now)
        health.failed(now + 0.5)
    assert lengths == [1, 2, 4, 8, 16, 32, 60, 60]


def test_many_failures_at_once_are_one() -> None:
    health = BackendHealth()
    assert [health.failed(100.0) for _ in range(64)] == [True] + [False] * 63
    assert health.until == 101.0


def test_after_a_success_pauses_are_short_again() -> None:
    health = BackendHealth()
    health.failed(100.0)
    health.trial(101.0)
    health.restore()
    assert not health.out
    health.failed(102.0)
    assert health.until == 103.0


def test_what_is_used_although_it_is_out_may_fail_again() -> None:
    health = BackendHealth()
    health.failed(100.0)
    assert health.failed(101.0)
    assert health.until == 103.0


def test_answers_502_to_504_count_only_in_a_row() -> None:
    health = BackendHealth()
    assert not any(health.unavailable(100.0) for _ in range(4))
    health.restore()
    assert not any(health.unavailable(100.0) for _ in range(4))
    assert health.unavailable(100.0)
    assert health.out


def test_a_trial_answered_503_was_none() -> None:
    health = BackendHealth()
    health.failed(100.0)
    health.trial(101.0)
    assert not health.unavailable(101.1)
    assert health.out
    assert not health.tested


def test_it_is_known_to_be_unreachable_once_anything_says_so() -> None:
    health = BackendHealth()
    health.failed(100.0)
    assert health.reachable
    health.failed(100.0, reachable=False)
    assert not health.reachable
    health.failed(100.5)  # what was begun before says nothing of connecting
    assert not health.reachable
    health.failed(101.0)  # somebody was connected to it meanwhile
    assert health.reachable
