from __future__ import annotations

from arke_proxy.balancing.passive_health import BackendHealth, HealthState


def test_ejections_double_up_to_a_minute() -> None:
    health, now = BackendHealth(), 100.0
    durations = []
    assert health.failed(now)
    for _ in range(8):
        durations.append(health.retry_at - now)
        now = health.retry_at
        health.start_trial(now)
        health.failed(now + 0.5)
    assert durations == [1, 2, 4, 8, 16, 32, 60, 60]


def test_concurrent_failures_start_one_ejection() -> None:
    health = BackendHealth()
    assert [health.failed(100.0) for _ in range(64)] == [True] + [False] * 63
    assert health.retry_at == 101.0


def test_recovery_resets_backoff() -> None:
    health = BackendHealth()
    health.failed(100.0)
    health.start_trial(101.0)
    health.recover()
    assert not health.ejected
    health.failed(102.0)
    assert health.retry_at == 103.0


def test_failure_after_ejection_starts_next_ejection() -> None:
    health = BackendHealth()
    health.failed(100.0)
    assert health.failed(101.0)
    assert health.retry_at == 103.0


def test_only_consecutive_unavailable_responses_eject() -> None:
    health = BackendHealth()
    assert not any(health.unavailable(100.0) for _ in range(4))
    health.recover()
    assert not any(health.unavailable(100.0) for _ in range(4))
    assert health.unavailable(100.0)
    assert health.ejected


def test_trial_with_503_response_fails() -> None:
    health = BackendHealth()
    health.failed(100.0)
    health.start_trial(101.0)
    assert not health.unavailable(101.1)
    assert health.ejected
    assert health.state is HealthState.EJECTED


def test_failed_connection_marks_backend_unreachable() -> None:
    health = BackendHealth()
    health.failed(100.0)
    assert health.reachable
    health.failed(100.0, reachable=False)
    assert not health.reachable
    health.failed(100.5)  # it used an older connection, so connecting may still fail
    assert not health.reachable
    health.failed(101.0)  # connecting has succeeded after the ejection
    assert health.reachable
