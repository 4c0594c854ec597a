"""Health of backends that members name in answers."""

from __future__ import annotations

import pytest

from arke_proxy.backends.address import BackendAddress
from arke_proxy.balancing.balancer import Outcome
from arke_proxy.balancing.recent_backends import RecentBackends

ONE = BackendAddress("127.0.0.1", 1)


def named() -> RecentBackends:
    made = RecentBackends()
    made.add(ONE, 100.0)
    return made


def test_one_trial_request_at_a_time() -> None:
    known = named()
    assert not known.avoid(ONE, 100.0)
    known.connect_failed(ONE, 100.0)
    assert known.avoid(ONE, 100.9)
    assert [known.avoid(ONE, 101.0) for _ in range(3)] == [False, True, True]
    known.request_started(ONE)
    known.request_ended(ONE, Outcome.ANSWERED, 101.1)
    assert not known.avoid(ONE, 101.2)


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.TIMED_OUT])
def test_failed_or_timed_out_backend_is_avoided(outcome: Outcome) -> None:
    known = named()
    known.request_started(ONE)
    known.request_ended(ONE, outcome, 100.0)
    assert known.avoid(ONE, 100.1)


def test_five_unavailable_answers_eject_recent_backend() -> None:
    known = named()
    for out in (False, False, False, False, True):
        known.request_ended(ONE, Outcome.UNAVAILABLE, 100.0)
        assert known.avoid(ONE, 100.1) == out


def test_answer_to_earlier_request_does_not_end_ejection() -> None:
    known = named()
    known.connect_failed(ONE, 100.0)
    known.request_ended(ONE, Outcome.ANSWERED, 100.1)
    assert known.avoid(ONE, 100.2)
    known.use_ejected(ONE, 100.3)  # the cluster names nothing else
    known.request_ended(ONE, Outcome.ANSWERED, 100.4)
    assert not known.avoid(ONE, 100.5)


def test_backend_is_usable_for_a_minute_after_it_was_seen() -> None:
    known = named()
    assert known.usable(ONE, 159.0)
    known.request_ended(ONE, Outcome.ANSWERED, 159.0)
    assert known.usable(ONE, 218.0)
    assert not known.usable(ONE, 219.0)
    assert not known.usable(BackendAddress("127.0.0.1", 2), 100.0)
    assert len(known.statuses(218.0)) == 1
    assert not known.statuses(219.0)


def test_oldest_backend_is_forgotten_at_the_limit() -> None:
    known = RecentBackends()
    for port in range(1, 1002):
        known.connect_failed(BackendAddress("127.0.0.1", port), 100.0)
    assert not known.avoid(ONE, 100.0)
    assert known.avoid(BackendAddress("127.0.0.1", 2), 100.0)
