"""What is remembered of backends that a cluster names when asked."""

from __future__ import annotations

import pytest

from arke_proxy.backends.address import BackendAddress
from arke_proxy.balancing.balancer import Outcome
from arke_proxy.balancing.recent_backends import RecentBackends

ONE = BackendAddress("127.0.0.1", 1)


def named() -> RecentBackends:
    made = RecentBackends()
    made.note(ONE, 100.0)
    return made


def test_one_request_finds_out_and_the_others_wait() -> None:
    known = named()
    assert not known.avoid(ONE, 100.0)
    known.connect_failed(ONE, 100.0)
    assert known.avoid(ONE, 100.9)
    assert [known.avoid(ONE, 101.0) for _ in range(3)] == [False, True, True]
    known.request_started(ONE)
    known.request_ended(ONE, Outcome.ANSWERED, 101.1)
    assert not known.avoid(ONE, 101.2)


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.TIMED_OUT])
def test_what_breaks_or_is_silent_is_avoided(outcome: Outcome) -> None:
    known = named()
    known.request_started(ONE)
    known.request_ended(ONE, outcome, 100.0)
    assert known.avoid(ONE, 100.1)


def test_five_answers_that_it_is_unavailable_are_enough() -> None:
    known = named()
    for out in (False, False, False, False, True):
        known.request_ended(ONE, Outcome.UNAVAILABLE, 100.0)
        assert known.avoid(ONE, 100.1) == out


def test_answers_to_what_was_sent_before_do_not_bring_it_back() -> None:
    known = named()
    known.connect_failed(ONE, 100.0)
    known.request_ended(ONE, Outcome.ANSWERED, 100.1)
    assert known.avoid(ONE, 100.2)
    known.risk(ONE, 100.3)  # the cluster names nothing else
    known.request_ended(ONE, Outcome.ANSWERED, 100.4)
    assert not known.avoid(ONE, 100.5)


def test_visitors_are_sent_where_the_cluster_or_an_answer_pointed_lately() -> None:
    known = named()
    assert known.lately(ONE, 159.0)
    known.request_ended(ONE, Outcome.ANSWERED, 159.0)
    assert known.lately(ONE, 218.0)
    assert not known.lately(ONE, 219.0)
    assert not known.lately(BackendAddress("127.0.0.1", 2), 100.0)
    assert len(known.statuses(218.0)) == 1
    assert not known.statuses(219.0)


def test_the_oldest_is_forgotten_when_there_are_too_many() -> None:
    known = RecentBackends()
    for port in range(1, 1002):
        known.connect_failed(BackendAddress("127.0.0.1", port), 100.0)
    assert not known.avoid(ONE, 100.0)
    assert known.avoid(BackendAddress("127.0.0.1", 2), 100.0)
