"""Requests as the core sees them through: each ends once, and is started at most once."""

from __future__ import annotations

import pytest

from arke.wire.limits import CHUNK
from arke.wire.messages import Failure
from arke_relay.core import router as module
from arke_relay.core.balancer import REFUSAL
from arke_relay.core.directed_request import DirectedRequest
from arke_relay.core.router import DuplicateRequest
from support.rooms import (
    CALL,
    DROP_CALL,
    FAILED,
    FAULT,
    PEER_CALL,
    REFUSED,
    REPLY,
    STOP,
    Room,
    call_of,
    taken,
)
from support.rooms import recorder as sink

NOBODY = Failure.NO_SUCH_CLUSTER
LOST = Failure.MEMBER_LOST
OVERLOADED = Failure.OVERLOADED
LATE = Failure.TIMED_OUT


# A request and its outcome.


def test_a_request_goes_to_a_member_and_its_answer_back() -> None:
    room = Room()
    client, member = room.client(), room.member()
    room.request(client, 3)
    ((op, call, body, timeout, stamp, sender, headers),) = taken(member)
    assert (op, body, sender, headers) == (CALL, b"body", client.sender, {"h": "v"})
    assert 5000 <= timeout <= 5001
    assert stamp == room.now * 1000
    room.router.reply(member, call, b"answer", room.now + 0.002)
    assert taken(client) == [(REPLY, 3, b"answer")]
    assert room.left_over() == []
    assert room.counters.outcomes == {"replied": 1}
    assert sum(room.counters.latency) == 1
    assert room.counters.latency_sum == pytest.approx(0.002)


def test_a_request_to_a_peer_carries_its_expiry_and_its_program() -> None:
    room = Room()
    client, peer = room.client(), room.peer("there", 1)
    room.request(client, 3)
    ((op, call, cluster, body, expiry, number, headers),) = taken(peer)
    assert (op, cluster, body, number) == (PEER_CALL, "c", b"body", client.id)
    assert headers == {"h": "v"}
    assert expiry == pytest.approx((room.now + 5) * 1000, abs=1)
    room.router.reply(peer, call, b"answer", room.now)
    assert taken(client) == [(REPLY, 3, b"answer")]
    assert room.left_over() == []


def test_a_peers_request_goes_to_members_here_alone() -> None:
    room = Room()
    asking, other, member = room.peer("asking"), room.peer("other", 1, 2, 3), room.member()
    for number in range(20):
        room.peer_call(asking, number)
        ((_, call, _, _, _, sender, _),) = taken(member)
        assert sender == "asking/7"
        room.router.reply(member, call, b"answer", room.now)
    assert taken(other) == []
    assert taken(asking) == [(REPLY, number, b"answer") for number in range(20)]
    assert room.left_over() == []
    assert not room.counters.outcomes, "the origin counts its own"


def test_a_fault_crosses_with_its_type_and_text() -> None:
    room = Room()
    client, member = room.client(), room.member()
    room.request(client, 1)
    room.router.fault(member, call_of(member), "ValueError", "no", room.now)
    assert taken(client) == [(FAULT, 1, "ValueError", "no")]
    assert room.left_over() == []
    assert room.counters.outcomes == {"faulted": 1}


def test_programs_number_their_calls_as_they_like() -> None:
    room = Room()
    one, other, member = room.client(), room.client(), room.member()
    room.request(one, 5)
    room.request(other, 5)
    first, second = (call for _, call, *_ in taken(member))
    room.router.reply(member, second, b"other", room.now)
    room.router.reply(member, first, b"one", room.now)
    assert taken(one) == [(REPLY, 5, b"one")]
    assert taken(other) == [(REPLY, 5, b"other")]


def test_an_id_in_use_is_not_used_again() -> None:
    room = Room()
    client, member, peer = room.client(), room.member(), room.peer("there")
    room.request(client, 1)
    with pytest.raises(DuplicateRequest):
        room.request(client, 1)
    room.peer_call(peer, 1)
    with pytest.raises(DuplicateRequest):
        room.peer_call(peer, 1)
    for _, call, *_ in taken(member):
        room.router.reply(member, call, b"", room.now)
    assert taken(client) == [(REPLY, 1, b"")]
    assert taken(peer) == [(REPLY, 1, b"")]
    room.request(client, 1)
    assert room.router._assigned


# Nobody, and not yet.


def test_nobody_in_the_network_is_said_at_once() -> None:
    room = Room()
    client = room.client()
    room.request(client, 1)
    ((*failed, text),) = taken(client)
    assert failed == [FAILED, 1, NOBODY]
    assert "'c'" in text
    assert room.left_over() == []
    assert room.counters.outcomes == {"no_such_cluster": 1}


def test_a_peer_that_asks_for_nobody_is_refused() -> None:
    """It may know others: a member that has just left here is not its last."""
    room = Room(settled=False)
    peer = room.peer("there", 1)
    room.peer_call(peer, 1)
    room.peer_call(peer, 2, "unheard of")
    assert [message[:2] for message in taken(peer)] == [(REFUSED, 1), (REFUSED, 2)]
    assert room.left_over() == []


def test_before_the_peers_have_told_a_request_waits() -> None:
    room = Room(settled=False)
    client = room.client()
    room.request(client, 1, "c")
    room.request(client, 2, "d")
    assert taken(client) == []
    assert len(room.router) == 2
    peer = room.peer("there", 1)
    assert [message[:3] for message in taken(peer)] == [(PEER_CALL, 1, "c")]
    room.router.settle(room.now)
    assert [message[:3] for message in taken(client)] == [(FAILED, 2, NOBODY)]
    room.request(client, 3, "d")
    assert [message[:3] for message in taken(client)] == [(FAILED, 3, NOBODY)]


def test_a_request_that_was_refused_before_the_peers_have_told_waits_too() -> None:
    room = Room(settled=False)
    client, member = room.client(), room.member()
    room.request(client, 1)
    room.core.leave(member)
    room.router.refused(member, call_of(member), "full", room.now)
    assert taken(client) == []
    peer = room.peer("there", 1)
    room.router.reply(peer, call_of(peer), b"there", room.now)
    assert taken(client) == [(REPLY, 1, b"there")]
    assert room.left_over() == []


def test_what_waits_can_expire_be_cancelled_and_abandoned() -> None:
    room = Room(settled=False)
    client, other = room.client(), room.client()
    room.request(client, 1, timeout=1)
    room.request(client, 2)
    room.request(other, 1)
    room.router.cancel(client, 2)
    room.core.detach(other, room.now)
    room.later(1.0)
    assert [message[:3] for message in taken(client)] == [(FAILED, 1, LATE)]
    assert room.left_over() == []
    assert room.counters.outcomes == {"timed_out": 1, "cancelled": 1, "abandoned": 1}


def test_what_waited_too_long_is_not_begun() -> None:
    """The member comes after the deadline and before anybody has looked."""
    room = Room(settled=False)
    client = room.client()
    room.request(client, 1, timeout=1)
    room.now += 1.0
    member = room.member()
    assert taken(member) == []
    assert [message[:3] for message in taken(client)] == [(FAILED, 1, LATE)]
    assert room.left_over() == []


# Refused: safe to try elsewhere.


def test_who_refuses_is_not_asked_again_and_others_are() -> None:
    room = Room()
    client = room.client()
    members = [room.member(), room.member(), room.peer("there", 1, 2)]
    room.request(client, 1)
    ids = []
    for _ in members:
        (member,) = [m for m in members if sink(m).messages]
        ids.append(call_of(member))
        room.router.refused(member, ids[-1], "full", room.now)
    ((*failed, text),) = taken(client)
    assert failed == [FAILED, 1, OVERLOADED]
    assert text == "nobody in 'c' took the request: full"
    assert len(set(ids)) == 3, "each hand-over has an id of its own"
    assert room.counters.retries == 3
    assert room.counters.outcomes == {"overloaded": 1}
    assert room.left_over() == []


def test_a_member_whose_outlet_is_full_was_never_asked() -> None:
    room = Room()
    client, full, member = room.client(), room.member(room=0), room.member()
    for number in range(20):
        room.request(client, number)
    assert len(taken(member)) == 20
    assert taken(full) == []
    assert taken(client) == []
    room.core.detach(member, room.now)
    taken(client)
    room.request(client, 20)
    assert [message[:3] for message in taken(client)] == [(FAILED, 20, OVERLOADED)]
    assert room.left_over() == []


def test_a_refusal_after_the_deadline_ends_it() -> None:
    room = Room()
    client, one, other = room.client(), room.member(), room.member()
    room.request(client, 1, timeout=1)
    room.now += 1.0
    (member,) = [m for m in (one, other) if sink(m).messages]
    room.router.refused(member, call_of(member), "full", room.now)
    assert taken(one) == taken(other) == []
    assert [message[:3] for message in taken(client)] == [(FAILED, 1, LATE)]
    assert room.left_over() == []


def test_a_second_hand_over_has_the_time_that_is_left() -> None:
    room = Room()
    client, one, other = room.client(), room.member(), room.member()
    room.request(client, 1, timeout=5)
    room.now += 4.0
    first, second = (one, other) if sink(one).messages else (other, one)
    room.router.refused(first, call_of(first), "full", room.now)
    ((_, _, _, timeout, *_),) = taken(second)
    assert 1000 <= timeout <= 1001


def test_a_peers_request_that_all_here_refuse_goes_back_to_it() -> None:
    room = Room()
    peer, one, other = room.peer("there", 1), room.member(), room.member()
    room.peer_call(peer, 4)
    for _ in range(2):
        member = one if sink(one).messages else other
        room.router.refused(member, call_of(member), "full", room.now)
    assert [message[:2] for message in taken(peer)] == [(REFUSED, 4)]
    assert room.left_over() == []


# Lost: perhaps begun.


def test_what_a_lost_member_had_fails_at_once() -> None:
    room = Room()
    client, member, other = room.client(), room.member(), room.member("d")
    room.request(client, 1)
    room.request(client, 2, "d")
    room.core.detach(member, room.now)
    assert [message[:3] for message in taken(client)] == [(FAILED, 1, LOST)]
    assert len(taken(other)) == 1
    assert room.counters.outcomes == {"member_lost": 1}


def test_what_a_lost_peer_had_fails_at_once() -> None:
    room = Room()
    client, peer = room.client(), room.peer("there", 1)
    room.request(client, 1)
    room.core.unlink(peer, room.now)
    assert [message[:3] for message in taken(client)] == [(FAILED, 1, LOST)]
    assert room.left_over() == []
    room.request(client, 2)
    assert [message[:3] for message in taken(client)] == [(FAILED, 2, NOBODY)]


def test_an_idempotent_request_is_tried_again() -> None:
    room = Room()
    client, one, other = room.client(), room.member(), room.member()
    room.request(client, 1, idempotent=True)
    first, second = (one, other) if sink(one).messages else (other, one)
    lost = call_of(first)
    room.core.detach(first, room.now)
    call = call_of(second)
    assert call != lost
    room.router.reply(second, call, b"again", room.now)
    assert taken(client) == [(REPLY, 1, b"again")]
    assert room.left_over() == []


def test_an_idempotent_request_that_nobody_is_left_for_was_lost_not_refused() -> None:
    """Overloaded promises that no handler was started."""
    room = Room()
    client, one, other = room.client(), room.member(), room.member()
    room.request(client, 1, idempotent=True)
    first, second = (one, other) if sink(one).messages else (other, one)
    room.core.detach(first, room.now)
    room.router.refused(second, call_of(second), "full", room.now)
    assert [message[:3] for message in taken(client)] == [(FAILED, 1, LOST)]
    room.request(client, 2, idempotent=True)
    room.core.detach(second, room.now)
    assert [message[:3] for message in taken(client)] == [(FAILED, 2, LOST)]
    assert room.left_over() == []


def test_a_peer_tells_that_its_member_was_lost() -> None:
    room = Room()
    client, peer = room.client(), room.peer("there", 1)
    room.request(client, 1)
    call = call_of(peer)
    member = room.member()
    room.router.failed(peer, call, LOST, "it died", room.now)
    assert taken(client) == [(FAILED, 1, LOST, "it died")]
    assert taken(member) == [], "it may have been begun"
    assert room.left_over() == []


def test_an_idempotent_request_that_a_peers_member_lost_is_tried_again() -> None:
    room = Room()
    client, peer = room.client(), room.peer("there", 1)
    room.request(client, 1, idempotent=True)
    call = call_of(peer)
    member = room.member()
    room.router.failed(peer, call, LOST, "it died", room.now)
    room.router.reply(member, call_of(member), b"again", room.now)
    assert taken(client) == [(REPLY, 1, b"again")]
    room.core.detach(member, room.now)
    room.request(client, 2, idempotent=True)
    room.router.failed(peer, call_of(peer), LOST, "", room.now)
    assert taken(client) == [(FAILED, 2, LOST, "")]
    assert room.left_over() == []


def test_what_a_lost_program_asked_is_dropped_where_it_is() -> None:
    room = Room()
    client, member, peer = room.client(), room.member(), room.peer("there", 1, cluster="d")
    room.request(client, 1)
    room.request(client, 2, "d")
    here, there = call_of(member), call_of(peer)
    room.core.detach(client, room.now)
    assert taken(peer) == [(DROP_CALL, there)]
    room.router.reply(member, here, b"", room.now)
    room.router.reply(peer, there, b"", room.now)
    assert room.counters.drops == {"late_reply": 2}
    assert room.left_over() == []


def test_a_program_that_asks_itself_and_goes_leaves_nothing() -> None:
    room = Room()
    member = room.member()
    room.request(member, 1, idempotent=True)
    room.core.detach(member, room.now)
    assert room.left_over() == []
    assert room.counters.outcomes == {"abandoned": 1}


# Leaving.


def test_a_member_that_leaves_still_answers_what_it_has() -> None:
    room = Room()
    client, member = room.client(), room.member()
    room.request(client, 1)
    room.core.leave(member)
    room.request(client, 2)
    room.router.reply(member, call_of(member), b"done", room.now)
    assert [message[:3] for message in taken(client)] == [(FAILED, 2, NOBODY), (REPLY, 1, b"done")]
    assert room.left_over() == []


def test_what_a_leaving_peer_never_accepted_goes_elsewhere() -> None:
    room = Room()
    client, peer = room.client(), room.peer("there", 1)
    for number in (1, 2, 3):
        room.request(client, number)
    accepted, _, _ = (call for _, call, *_ in taken(peer))
    member = room.member()
    room.core.drain_peer(peer, accepted, room.now)
    room.request(client, 4)
    assert taken(peer) == []
    for _, call, *_ in taken(member):
        room.router.reply(member, call, b"here", room.now)
    room.router.reply(peer, accepted, b"there", room.now)
    assert sorted(taken(client)) == [
        (REPLY, 1, b"there"),
        (REPLY, 2, b"here"),
        (REPLY, 3, b"here"),
        (REPLY, 4, b"here"),
    ]
    assert room.left_over() == []


def test_a_leaving_relay_accepts_nothing_new() -> None:
    """Programs were told by the goodbye; peers are told for each, in case they had not heard."""
    room = Room()
    client, member, peer = room.client(), room.member(), room.peer("there")
    room.request(client, 5)
    room.peer_call(peer, 5)
    room.router.draining = True
    room.request(client, 6)
    room.peer_call(peer, 6)
    assert len(taken(member)) == 2
    assert taken(client) == []
    assert [message[:2] for message in taken(peer)] == [(REFUSED, 6)]
    room.request(client, 4)
    assert len(taken(member)) == 1, "it was on its way in pieces when the goodbye was said"
    assert (client.last_request_id, peer.last_request_id) == (5, 5)


# What the balancer is told.


@pytest.mark.parametrize("failure", ["fault", "refused", "expired", "full"])
def test_a_failure_is_held_against_who_failed(failure: str) -> None:
    room = Room()
    client, member = room.client(), room.member(room=0 if failure == "full" else None)
    (candidate,) = room.core.directory.clusters["c"].draws
    room.request(client, 1)
    if failure == "fault":
        room.router.fault(member, call_of(member), "E", "", room.now)
    elif failure == "refused":
        room.router.refused(member, call_of(member), "full", room.now)
    elif failure == "expired":
        room.later(5.0)
    assert candidate.penalty > 0
    assert candidate.penalised_at == room.now


@pytest.mark.parametrize("patience", [0.001, 0.25])
def test_a_caller_with_little_patience_tells_little_about_a_member(patience: float) -> None:
    room = Room()
    client, _ = room.client(), room.member()
    (candidate,) = room.core.directory.clusters["c"].draws
    room.request(client, 1, timeout=patience)
    room.later(patience)
    assert candidate.penalty == pytest.approx(REFUSAL * patience)


def test_an_answer_is_held_against_nobody() -> None:
    room = Room()
    client, member = room.client(), room.member()
    (candidate,) = room.core.directory.clusters["c"].draws
    for number in range(3):
        room.request(client, number)
        room.router.reply(member, call_of(member), b"", room.now)
    room.request(client, 3)
    room.router.cancel(client, 3)
    assert candidate.penalty == 0
    assert candidate.answered == 3


# Cancelled, and late.


def test_a_stop_that_finds_no_room_is_counted() -> None:
    room = Room()
    client, member = room.client(), room.member(room=1)
    room.request(client, 1)
    room.router.cancel(client, 1)
    call_of(member)  # nothing else
    assert room.counters.drops["cancel_queue_full"] == 1
    assert room.left_over() == []


def test_a_cancelled_request_is_nobodys() -> None:
    room = Room()
    client, member, peer = room.client(), room.member(), room.peer("there", 1, cluster="d")
    room.request(client, 1)
    room.request(client, 2, "d")
    here, there = call_of(member), call_of(peer)
    room.router.cancel(client, 1)
    room.router.cancel(client, 2)
    room.router.cancel(client, 2)
    room.router.cancel(client, 99)
    assert taken(peer) == [(DROP_CALL, there)]
    assert taken(member) == [(STOP, here)]
    room.router.reply(member, here, b"", room.now)
    assert taken(client) == []
    assert room.counters.outcomes == {"cancelled": 2}
    assert room.counters.drops == {"late_reply": 1}
    assert room.left_over() == []


def test_a_deadline_ends_a_request() -> None:
    room = Room()
    client, member, peer = room.client(), room.member(), room.peer("there")
    room.request(client, 1, timeout=1.0)
    room.request(client, 2, timeout=3.0)
    room.peer_call(peer, 1, timeout=1.0)
    calls = [call for _, call, *_ in taken(member)]
    room.later(0.999)
    assert taken(client) == []
    room.later(0.001)
    assert [message[:3] for message in taken(client)] == [(FAILED, 1, LATE)]
    assert taken(peer) == [], "its own clock tells its program"
    for call in calls:
        room.router.reply(member, call, b"", room.now)
    assert taken(client) == [(REPLY, 2, b"")]
    assert room.counters.drops == {"late_reply": 2}
    assert room.left_over() == []


def test_what_expired_on_the_way_is_not_begun() -> None:
    room = Room()
    member, peer = room.member(), room.peer("there")
    for timeout in (0.0, -3.0):
        room.peer_call(peer, 1, timeout=timeout)
    client = room.client()
    room.request(client, 1, timeout=0)
    assert taken(member) == []
    assert [message[:3] for message in taken(client)] == [(FAILED, 1, LATE)]
    assert room.counters.drops == {"expired_in_transit": 2}
    assert room.left_over() == []


@pytest.mark.parametrize("outcome", ["reply", "fault", "refused", "failed"])
def test_only_who_has_a_call_may_end_it(outcome: str) -> None:
    room = Room()
    client, member = room.client(), room.member()
    wrong = [room.client(), room.member("d"), room.peer("there", 1, cluster="d"), client]
    room.request(client, 1)
    call = call_of(member)
    fields = {
        "reply": (b"forged",),
        "fault": ("Forged", ""),
        "refused": ("forged",),
        "failed": (LOST, "forged"),
    }
    for endpoint in wrong:
        getattr(room.router, outcome)(endpoint, call, *fields[outcome], room.now)
    getattr(room.router, outcome)(member, call + 1, *fields[outcome], room.now)
    assert taken(client) == []
    room.router.reply(member, call, b"true", room.now)
    room.router.reply(member, call, b"twice", room.now)
    assert taken(client) == [(REPLY, 1, b"true")]
    assert room.counters.drops == {"late_reply": len(wrong) + 2}


def test_an_answer_to_the_first_hand_over_is_none_to_the_second() -> None:
    """The peer refuses, then comes to its senses: by then somebody else has the request."""
    room = Room()
    client, peer = room.client(), room.peer("there", 1)
    room.request(client, 1)
    first = call_of(peer)
    member = room.member()
    room.router.refused(peer, first, "full", room.now)
    room.router.reply(peer, first, b"after all", room.now)
    assert taken(client) == []
    room.router.reply(member, call_of(member), b"right", room.now)
    assert taken(client) == [(REPLY, 1, b"right")]


def test_an_answer_without_room_is_counted() -> None:
    room = Room()
    client, member, peer = room.client(), room.member(), room.peer("there")
    sink(client).room = sink(peer).room = 0
    for number in range(3):
        room.request(client, number)
        room.peer_call(peer, number)
    first, second, third, fourth, *rest = (call for _, call, *_ in taken(member))
    room.router.reply(member, first, b"", room.now)
    room.router.reply(member, second, b"", room.now)
    room.router.fault(member, third, "E", "", room.now)
    room.router.refused(member, fourth, "full", room.now)
    assert room.counters.drops["reply_queue_full"] == 4
    room.core.detach(member, room.now)
    assert room.counters.drops["reply_queue_full"] == 4 + len(rest)
    assert room.left_over() == []


# Bounds.


def test_a_party_may_have_so_many_requests_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PENDING_REQUESTS", 3)
    room = Room()
    client, member, peer = room.client(), room.member(), room.peer("there")
    for number in range(1, 5):
        room.request(client, number)
        room.peer_call(peer, number)
    assert [message[:3] for message in taken(client)] == [(FAILED, 4, OVERLOADED)]
    assert [message[:2] for message in taken(peer)] == [(REFUSED, 4)], "others may have room"
    for _, call, *_ in taken(member):
        room.router.reply(member, call, b"", room.now)
    assert len(taken(client)) == 3
    room.request(client, 5)
    assert len(taken(member)) == 1


def test_a_party_may_leave_so_many_octets_in_our_care(monkeypatch: pytest.MonkeyPatch) -> None:
    header = 128 + len("hv")  # each request has one
    monkeypatch.setattr(module, "HELD_LIMIT", 2 * header + 100)
    room = Room()
    client, other, member = room.client(), room.client(), room.member()
    room.request(client, 1, body=bytes(60))
    room.request(client, 2, body=bytes(41))
    room.request(other, 1, body=bytes(header + 100))
    assert [message[:3] for message in taken(client)] == [(FAILED, 2, OVERLOADED)]
    assert len(taken(member)) == 2
    room.router.cancel(client, 1)
    room.request(client, 3, body=bytes(header + 100))
    assert [message[0] for message in taken(member)] == [STOP, CALL]
    assert client.held_bytes == 2 * header + 100


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("there", [False, True])
def test_what_takes_a_large_request_back_cannot_pass_it(special: bool, there: bool) -> None:
    room = Room()
    client = room.client()
    assignee = room.peer("there", 1) if there else room.member()
    if special:
        facts = (client, 1, "c", bytes(CHUNK + 1), room.now, room.now + 5, False, "s", None)
        room.router.request(DirectedRequest(*facts, to=None, opening=None), room.now)
    else:
        room.request(client, 1, body=bytes(CHUNK + 1))
    room.router.cancel(client, 1)
    assert [m[0] for m in assignee.sink.messages][1:] == [DROP_CALL if there else STOP]
    first, second = assignee.sink.orders
    assert first == second
    assert first is not None
