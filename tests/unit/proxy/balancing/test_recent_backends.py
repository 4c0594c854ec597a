"""What is remembered of back ends that a cluster names when asked."""

from __future__ import annotations

import pytest

from arke_proxy.backends.address import Address
from arke_proxy.balancing.balancer import Outcome
from arke_proxy.balancing.recent_backends import Named

ONE = Address("127.0.0.1", 1)


def named() -> Named:
    made = Named()
    made.note(ONE, 100.0)
    return made


def test_one_request_finds_out_and_the_others_wait() -> None:
    known = named()
    assert not known.avoid(ONE, 100.0)
    known.unreachable(ONE, 100.0)
    assert known.avoid(ONE, 100.9)
    assert [known.avoid(ONE, 101.0) for _ in range(3)] == [False, True, True]
    known.began(ONE)
    known.ended(ONE, Outcome.ANSWERED, 101.1)
    assert not known.avoid(ONE, 101.2)


@pytest.mark.parametrize("outcome", [Outcome.BROKE, Outcome.SILENT])
def test_what_breaks_or_is_silent_is_avoided(outcome: Outcome) -> None:
    known = named()
    known.began(ONE)
    known.ended(ONE, outcome, 100.0)
    assert known.avoid(ONE, 100.1)


def test_five_answers_that_it_is_unavailable_are_enough() -> None:
    known = named()
    for out in (False, False, False, False, True):
        known.ended(ONE, Outcome.UNAVAILABLE, 100.0)
        assert known.avoid(ONE, 100.1) == out


def test_answers_to_what_was_sent_before_do_not_bring_it_back() -> None:
    known = named()
    known.unreachable(ONE, 100.0)
    known.ended(ONE, Outcome.ANSWERED, 100.1)
    assert known.avoid(ONE, 100.2)
    known.risk(ONE, 100.3)  # the cluster names nothing else
    known.ended(ONE, Outcome.ANSWERED, 100.4)
    assert not known.avoid(ONE, 100.5)


def test_visitors_are_sent_where_the_cluster_or_an_answer_pointed_lately() -> None:
    known = named()
    assert known.lately(ONE, 159.0)
    known.ended(ONE, Outcome.ANSWERED, 159.0)
    assert known.lately(ONE, 218.0)
    assert not known.lately(ONE, 219.0)
    assert not known.lately(Address("127.0.0.1", 2), 100.0)
    assert len(known.standings(218.0)) == 1
    assert not known.standings(219.0)


def test_the_oldest_is_forgotten_when_there_are_too_many() -> None:
    known = Named()
    for port in range(1, 1002):
        known.unreachable(Address("127.0.0.1", port), 100.0)
    assert not known.avoid(ONE, 100.0)
    assert known.avoid(Address("127.0.0.1", 2), 100.0)
