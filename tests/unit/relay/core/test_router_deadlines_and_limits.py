"""The router: cancellation, deadlines and limits."""

from __future__ import annotations

import pytest

from arke.wire.limits import CHUNK
from arke.wire.messages import Failure
from arke_relay.core import router as module
from arke_relay.core.directed_request import DirectedRequest
from support.core_harness import (
    DELIVER_REQUEST,
    FAILED,
    PEER_CANCEL,
    REFUSED,
    REPLY,
    REQUEST_CANCELLED,
    CoreHarness,
    request_id_of,
    sent_to,
)
from support.core_harness import sink_of as sink

NO_SUCH_CLUSTER = Failure.NO_SUCH_CLUSTER
LOST = Failure.MEMBER_LOST
OVERLOADED = Failure.OVERLOADED
TIMED_OUT = Failure.TIMED_OUT


# Cancellation and deadlines.


def test_cancellation_that_does_not_fit_is_counted() -> None:
    harness = CoreHarness()
    caller, member = harness.caller(), harness.member(room=1)
    harness.request(caller, 1)
    harness.router.cancel(caller, 1)
    request_id_of(member)  # nothing else
    assert harness.counters.drops["cancel_queue_full"] == 1
    assert harness.leftovers() == []


def test_reply_to_a_cancelled_request_is_dropped() -> None:
    harness = CoreHarness()
    caller, member, peer = harness.caller(), harness.member(), harness.peer("there", 1, cluster="d")
    harness.request(caller, 1)
    harness.request(caller, 2, "d")
    here, there = request_id_of(member), request_id_of(peer)
    harness.router.cancel(caller, 1)
    harness.router.cancel(caller, 2)
    harness.router.cancel(caller, 2)
    harness.router.cancel(caller, 99)
    assert sent_to(peer) == [(PEER_CANCEL, there)]
    assert sent_to(member) == [(REQUEST_CANCELLED, here)]
    harness.router.reply(member, here, b"", harness.now)
    assert sent_to(caller) == []
    assert harness.counters.outcomes == {"cancelled": 2}
    assert harness.counters.drops == {"late_reply": 1}
    assert harness.leftovers() == []


def test_request_times_out_at_its_deadline() -> None:
    harness = CoreHarness()
    caller, member, peer = harness.caller(), harness.member(), harness.peer("there")
    harness.request(caller, 1, timeout=1.0)
    harness.request(caller, 2, timeout=3.0)
    harness.peer_request(peer, 1, timeout=1.0)
    request_ids = [request_id for _, request_id, *_ in sent_to(member)]
    harness.advance_clock(0.999)
    assert sent_to(caller) == []
    harness.advance_clock(0.001)
    assert [message[:3] for message in sent_to(caller)] == [(FAILED, 1, TIMED_OUT)]
    assert sent_to(peer) == [], "the peer times out its own caller"
    for request_id in request_ids:
        harness.router.reply(member, request_id, b"", harness.now)
    assert sent_to(caller) == [(REPLY, 2, b"")]
    assert harness.counters.drops == {"late_reply": 2}
    assert harness.leftovers() == []


def test_request_that_expired_in_transit_is_not_started() -> None:
    harness = CoreHarness()
    member, peer = harness.member(), harness.peer("there")
    for timeout in (0.0, -3.0):
        harness.peer_request(peer, 1, timeout=timeout)
    caller = harness.caller()
    harness.request(caller, 1, timeout=0)
    assert sent_to(member) == []
    assert [message[:3] for message in sent_to(caller)] == [(FAILED, 1, TIMED_OUT)]
    assert harness.counters.drops == {"expired_in_transit": 2}
    assert harness.leftovers() == []


@pytest.mark.parametrize("outcome", ["reply", "fault", "refused", "failed"])
def test_only_the_assignee_may_end_a_request(outcome: str) -> None:
    harness = CoreHarness()
    caller, member = harness.caller(), harness.member()
    wrong = [harness.caller(), harness.member("d"), harness.peer("there", 1, cluster="d"), caller]
    harness.request(caller, 1)
    request_id = request_id_of(member)
    fields = {
        "reply": (b"forged",),
        "fault": ("Forged", ""),
        "refused": ("forged",),
        "failed": (LOST, "forged"),
    }
    for endpoint in wrong:
        getattr(harness.router, outcome)(endpoint, request_id, *fields[outcome], harness.now)
    getattr(harness.router, outcome)(member, request_id + 1, *fields[outcome], harness.now)
    assert sent_to(caller) == []
    harness.router.reply(member, request_id, b"true", harness.now)
    harness.router.reply(member, request_id, b"twice", harness.now)
    assert sent_to(caller) == [(REPLY, 1, b"true")]
    assert harness.counters.drops == {"late_reply": len(wrong) + 2}


def test_reply_to_an_earlier_attempt_is_dropped() -> None:
    """The peer refuses and then replies; another member has the request by then."""
    harness = CoreHarness()
    caller, peer = harness.caller(), harness.peer("there", 1)
    harness.request(caller, 1)
    first = request_id_of(peer)
    member = harness.member()
    harness.router.refused(peer, first, "full", harness.now)
    harness.router.reply(peer, first, b"after all", harness.now)
    assert sent_to(caller) == []
    harness.router.reply(member, request_id_of(member), b"right", harness.now)
    assert sent_to(caller) == [(REPLY, 1, b"right")]


def test_reply_that_does_not_fit_is_counted() -> None:
    harness = CoreHarness()
    caller, member, peer = harness.caller(), harness.member(), harness.peer("there")
    sink(caller).room = sink(peer).room = 0
    for number in range(3):
        harness.request(caller, number)
        harness.peer_request(peer, number)
    first, second, third, fourth, *rest = (request_id for _, request_id, *_ in sent_to(member))
    harness.router.reply(member, first, b"", harness.now)
    harness.router.reply(member, second, b"", harness.now)
    harness.router.fault(member, third, "E", "", harness.now)
    harness.router.refused(member, fourth, "full", harness.now)
    assert harness.counters.drops["reply_queue_full"] == 4
    harness.core.programs.detach(member, harness.now)
    assert harness.counters.drops["reply_queue_full"] == 4 + len(rest)
    assert harness.leftovers() == []


# Limits.


def test_open_requests_of_an_endpoint_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PENDING_REQUESTS", 3)
    harness = CoreHarness()
    caller, member, peer = harness.caller(), harness.member(), harness.peer("there")
    for number in range(1, 5):
        harness.request(caller, number)
        harness.peer_request(peer, number)
    assert [message[:3] for message in sent_to(caller)] == [(FAILED, 4, OVERLOADED)]
    assert [message[:2] for message in sent_to(peer)] == [(REFUSED, 4)], (
        "the peer may retry it elsewhere"
    )
    for _, request_id, *_ in sent_to(member):
        harness.router.reply(member, request_id, b"", harness.now)
    assert len(sent_to(caller)) == 3
    harness.request(caller, 5)
    assert len(sent_to(member)) == 1


def test_request_bytes_of_an_endpoint_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    header = 128 + len("hv")  # each request has one
    monkeypatch.setattr(module, "HELD_LIMIT", 2 * header + 100)
    harness = CoreHarness()
    caller, other, member = harness.caller(), harness.caller(), harness.member()
    harness.request(caller, 1, body=bytes(60))
    harness.request(caller, 2, body=bytes(41))
    harness.request(other, 1, body=bytes(header + 100))
    assert [message[:3] for message in sent_to(caller)] == [(FAILED, 2, OVERLOADED)]
    assert len(sent_to(member)) == 2
    harness.router.cancel(caller, 1)
    harness.request(caller, 3, body=bytes(header + 100))
    assert [message[0] for message in sent_to(member)] == [REQUEST_CANCELLED, DELIVER_REQUEST]
    assert caller.held_bytes == 2 * header + 100


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("there", [False, True])
def test_cancellation_does_not_overtake_a_large_request(special: bool, there: bool) -> None:
    harness = CoreHarness()
    caller = harness.caller()
    assignee = harness.peer("there", 1) if there else harness.member()
    if special:
        fields = (caller, 1, "c", bytes(CHUNK + 1), harness.now + 5, "s", None)
        harness.router.request(DirectedRequest(*fields, member=None, tunnel=None), harness.now)
    else:
        harness.request(caller, 1, body=bytes(CHUNK + 1))
    harness.router.cancel(caller, 1)
    expected = PEER_CANCEL if there else REQUEST_CANCELLED
    assert [m[0] for m in assignee.sink.messages][1:] == [expected]
    first, second = assignee.sink.orders
    assert first == second
    assert first is not None
