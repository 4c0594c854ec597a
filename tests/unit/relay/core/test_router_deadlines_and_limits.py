"""The router: cancellation, deadlines and limits."""

from __future__ import annotations

import pytest

from arke.wire.limits import CHUNK
from arke.wire.messages import Failure
from arke_relay.core import router as module
from arke_relay.core.directed_request import DirectedRequest
from support.core_harness import (
    CALL,
    DROP_CALL,
    FAILED,
    REFUSED,
    REPLY,
    STOP,
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
    client, member = harness.client(), harness.member(room=1)
    harness.request(client, 1)
    harness.router.cancel(client, 1)
    request_id_of(member)  # nothing else
    assert harness.counters.drops["cancel_queue_full"] == 1
    assert harness.leftovers() == []


def test_reply_to_a_cancelled_request_is_dropped() -> None:
    harness = CoreHarness()
    client, member, peer = harness.client(), harness.member(), harness.peer("there", 1, cluster="d")
    harness.request(client, 1)
    harness.request(client, 2, "d")
    here, there = request_id_of(member), request_id_of(peer)
    harness.router.cancel(client, 1)
    harness.router.cancel(client, 2)
    harness.router.cancel(client, 2)
    harness.router.cancel(client, 99)
    assert sent_to(peer) == [(DROP_CALL, there)]
    assert sent_to(member) == [(STOP, here)]
    harness.router.reply(member, here, b"", harness.now)
    assert sent_to(client) == []
    assert harness.counters.outcomes == {"cancelled": 2}
    assert harness.counters.drops == {"late_reply": 1}
    assert harness.leftovers() == []


def test_request_times_out_at_its_deadline() -> None:
    harness = CoreHarness()
    client, member, peer = harness.client(), harness.member(), harness.peer("there")
    harness.request(client, 1, timeout=1.0)
    harness.request(client, 2, timeout=3.0)
    harness.peer_request(peer, 1, timeout=1.0)
    calls = [call for _, call, *_ in sent_to(member)]
    harness.advance_clock(0.999)
    assert sent_to(client) == []
    harness.advance_clock(0.001)
    assert [message[:3] for message in sent_to(client)] == [(FAILED, 1, TIMED_OUT)]
    assert sent_to(peer) == [], "the peer times out its own caller"
    for call in calls:
        harness.router.reply(member, call, b"", harness.now)
    assert sent_to(client) == [(REPLY, 2, b"")]
    assert harness.counters.drops == {"late_reply": 2}
    assert harness.leftovers() == []


def test_request_that_expired_in_transit_is_not_started() -> None:
    harness = CoreHarness()
    member, peer = harness.member(), harness.peer("there")
    for timeout in (0.0, -3.0):
        harness.peer_request(peer, 1, timeout=timeout)
    client = harness.client()
    harness.request(client, 1, timeout=0)
    assert sent_to(member) == []
    assert [message[:3] for message in sent_to(client)] == [(FAILED, 1, TIMED_OUT)]
    assert harness.counters.drops == {"expired_in_transit": 2}
    assert harness.leftovers() == []


@pytest.mark.parametrize("outcome", ["reply", "fault", "refused", "failed"])
def test_only_the_assignee_may_end_a_request(outcome: str) -> None:
    harness = CoreHarness()
    client, member = harness.client(), harness.member()
    wrong = [harness.client(), harness.member("d"), harness.peer("there", 1, cluster="d"), client]
    harness.request(client, 1)
    call = request_id_of(member)
    fields = {
        "reply": (b"forged",),
        "fault": ("Forged", ""),
        "refused": ("forged",),
        "failed": (LOST, "forged"),
    }
    for endpoint in wrong:
        getattr(harness.router, outcome)(endpoint, call, *fields[outcome], harness.now)
    getattr(harness.router, outcome)(member, call + 1, *fields[outcome], harness.now)
    assert sent_to(client) == []
    harness.router.reply(member, call, b"true", harness.now)
    harness.router.reply(member, call, b"twice", harness.now)
    assert sent_to(client) == [(REPLY, 1, b"true")]
    assert harness.counters.drops == {"late_reply": len(wrong) + 2}


def test_reply_to_an_earlier_attempt_is_dropped() -> None:
    """The peer refuses and then replies; another member has the request by then."""
    harness = CoreHarness()
    client, peer = harness.client(), harness.peer("there", 1)
    harness.request(client, 1)
    first = request_id_of(peer)
    member = harness.member()
    harness.router.refused(peer, first, "full", harness.now)
    harness.router.reply(peer, first, b"after all", harness.now)
    assert sent_to(client) == []
    harness.router.reply(member, request_id_of(member), b"right", harness.now)
    assert sent_to(client) == [(REPLY, 1, b"right")]


def test_reply_that_does_not_fit_is_counted() -> None:
    harness = CoreHarness()
    client, member, peer = harness.client(), harness.member(), harness.peer("there")
    sink(client).room = sink(peer).room = 0
    for number in range(3):
        harness.request(client, number)
        harness.peer_request(peer, number)
    first, second, third, fourth, *rest = (call for _, call, *_ in sent_to(member))
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
    client, member, peer = harness.client(), harness.member(), harness.peer("there")
    for number in range(1, 5):
        harness.request(client, number)
        harness.peer_request(peer, number)
    assert [message[:3] for message in sent_to(client)] == [(FAILED, 4, OVERLOADED)]
    assert [message[:2] for message in sent_to(peer)] == [(REFUSED, 4)], (
        "the peer may retry it elsewhere"
    )
    for _, call, *_ in sent_to(member):
        harness.router.reply(member, call, b"", harness.now)
    assert len(sent_to(client)) == 3
    harness.request(client, 5)
    assert len(sent_to(member)) == 1


def test_request_bytes_of_an_endpoint_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    header = 128 + len("hv")  # each request has one
    monkeypatch.setattr(module, "HELD_LIMIT", 2 * header + 100)
    harness = CoreHarness()
    client, other, member = harness.client(), harness.client(), harness.member()
    harness.request(client, 1, body=bytes(60))
    harness.request(client, 2, body=bytes(41))
    harness.request(other, 1, body=bytes(header + 100))
    assert [message[:3] for message in sent_to(client)] == [(FAILED, 2, OVERLOADED)]
    assert len(sent_to(member)) == 2
    harness.router.cancel(client, 1)
    harness.request(client, 3, body=bytes(header + 100))
    assert [message[0] for message in sent_to(member)] == [STOP, CALL]
    assert client.held_bytes == 2 * header + 100


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("there", [False, True])
def test_cancellation_does_not_overtake_a_large_request(special: bool, there: bool) -> None:
    harness = CoreHarness()
    client = harness.client()
    assignee = harness.peer("there", 1) if there else harness.member()
    if special:
        fields = (client, 1, "c", bytes(CHUNK + 1), harness.now + 5, "s", None)
        harness.router.request(DirectedRequest(*fields, member=None, tunnel=None), harness.now)
    else:
        harness.request(client, 1, body=bytes(CHUNK + 1))
    harness.router.cancel(client, 1)
    assert [m[0] for m in assignee.sink.messages][1:] == [DROP_CALL if there else STOP]
    first, second = assignee.sink.orders
    assert first == second
    assert first is not None
