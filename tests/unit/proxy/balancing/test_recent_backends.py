"""RecentBackends: the health of the backends that members have named."""

from __future__ import annotations

import pytest

from arke_proxy.backends.address import BackendAddress
from arke_proxy.balancing.balancer import Outcome
from arke_proxy.balancing.recent_backends import RecentBackends

ONE = BackendAddress("127.0.0.1", 1)


def recent_with_one_backend() -> RecentBackends:
    recent = RecentBackends()
    recent.add(ONE, 100.0)
    return recent


def test_ejected_backend_gets_one_trial_request_at_a_time() -> None:
    recent = recent_with_one_backend()
    assert not recent.avoid(ONE, 100.0)
    recent.connect_failed(ONE, 100.0)
    assert recent.avoid(ONE, 100.9)
    assert [recent.avoid(ONE, 101.0) for _ in range(3)] == [False, True, True]
    recent.request_started(ONE)
    recent.request_ended(ONE, Outcome.ANSWERED, 101.1)
    assert not recent.avoid(ONE, 101.2)


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.TIMED_OUT])
def test_failed_or_timed_out_backend_is_avoided(outcome: Outcome) -> None:
    recent = recent_with_one_backend()
    recent.request_started(ONE)
    recent.request_ended(ONE, outcome, 100.0)
    assert recent.avoid(ONE, 100.1)


def test_five_consecutive_unavailable_responses_eject_recent_backend() -> None:
    recent = recent_with_one_backend()
    for ejected in (False, False, False, False, True):
        recent.request_ended(ONE, Outcome.UNAVAILABLE, 100.0)
        assert recent.avoid(ONE, 100.1) == ejected


def test_response_to_earlier_request_does_not_end_ejection() -> None:
    recent = recent_with_one_backend()
    recent.connect_failed(ONE, 100.0)
    recent.request_ended(ONE, Outcome.ANSWERED, 100.1)
    assert recent.avoid(ONE, 100.2)
    recent.use_ejected(ONE, 100.3)  # the cluster names no other backend
    recent.request_ended(ONE, Outcome.ANSWERED, 100.4)
    assert not recent.avoid(ONE, 100.5)


def test_backend_is_usable_for_a_minute_after_it_was_seen() -> None:
    recent = recent_with_one_backend()
    assert recent.usable(ONE, 159.0)
    recent.request_ended(ONE, Outcome.ANSWERED, 159.0)
    assert recent.usable(ONE, 218.0)
    assert not recent.usable(ONE, 219.0)
    assert not recent.usable(BackendAddress("127.0.0.1", 2), 100.0)
    assert len(recent.statuses(218.0)) == 1
    assert not recent.statuses(219.0)


def test_oldest_backend_is_forgotten_at_the_limit() -> None:
    recent = RecentBackends()
    for port in range(1, 1002):
        recent.connect_failed(BackendAddress("127.0.0.1", port), 100.0)
    assert not recent.avoid(ONE, 100.0)
    assert recent.avoid(BackendAddress("127.0.0.1", 2), 100.0)
