"""Requests as the core sees them through: each ends once, and is started at most once."""

from __future__ import annotations

import pytest

from arke.wire.limits import CHUNK
from arke.wire.messages import Failure
from arke_relay.core import router as module
from arke_relay.core.balancer import REFUSAL
from arke_relay.core.directed_request import DirectedRequest
from arke_relay.core.router import DuplicateRequest
from support.core_harness import (
    CALL,
    DROP_CALL,
    FAILED,
    FAULT,
    PEER_CALL,
    REFUSED,
    REPLY,
    STOP,
    CoreHarness,
    request_id_of,
    sent_to,
)
from support.core_harness import sink_of as sink

NOBODY = Failure.NO_SUCH_CLUSTER
LOST = Failure.MEMBER_LOST
OVERLOADED = Failure.OVERLOADED
LATE = Failure.TIMED_OUT


# A request and its outcome.


def test_a_request_goes_to_a_member_and_its_answer_back() -> None:
    room = CoreHarness()
    client, member = room.client(), room.member()
    room.request(client, 3)
    ((op, call, body, timeout, stamp, sender, headers),) = sent_to(member)
    assert (op, body, sender, headers) == (CALL, b"body", client.sender, {"h": "v"})
    assert 5000 <= timeout <= 5001
    assert stamp == room.now * 1000
    room.router.reply(member, call, b"answer", room.now + 0.002)
    assert sent_to(client) == [(REPLY, 3, b"answer")]
    assert room.leftovers() == []
    assert room.counters.outcomes == {"replied": 1}
    assert sum(room.counters.latency) == 1
    assert room.counters.latency_sum == pytest.approx(0.002)


def test_a_request_to_a_peer_carries_its_expiry_and_its_program() -> None:
    room = CoreHarness()
    client, peer = room.client(), room.peer("there", 1)
    room.request(client, 3)
    ((op, call, cluster, body, expiry, number, headers),) = sent_to(peer)
    assert (op, cluster, body, number) == (PEER_CALL, "c", b"body", client.id)
    assert headers == {"h": "v"}
    assert expiry == pytest.approx((room.now + 5) * 1000, abs=1)
    room.router.reply(peer, call, b"answer", room.now)
    assert sent_to(client) == [(REPLY, 3, b"answer")]
    assert room.leftovers() == []


def test_a_peers_request_goes_to_members_here_alone() -> None:
    room = CoreHarness()
    asking, other, member = room.peer("asking"), room.peer("other", 1, 2, 3), room.member()
    for number in range(20):
        room.peer_request(asking, number)
        ((_, call, _, _, _, sender, _),) = sent_to(member)
        assert sender == "asking/7"
        room.router.reply(member, call, b"answer", room.now)
    assert sent_to(other) == []
    assert sent_to(asking) == [(REPLY, number, b"answer") for number in range(20)]
    assert room.leftovers() == []
    assert not room.counters.outcomes, "the origin counts its own"


def test_a_fault_crosses_with_its_type_and_text() -> None:
    room = CoreHarness()
    client, member = room.client(), room.member()
    room.request(client, 1)
    room.router.fault(member, request_id_of(member), "ValueError", "no", room.now)
    assert sent_to(client) == [(FAULT, 1, "ValueError", "no")]
    assert room.leftovers() == []
    assert room.counters.outcomes == {"faulted": 1}


def test_programs_number_their_calls_as_they_like() -> None:
    room = CoreHarness()
    one, other, member = room.client(), room.client(), room.member()
    room.request(one, 5)
    room.request(other, 5)
    first, second = (call for _, call, *_ in sent_to(member))
    room.router.reply(member, second, b"other", room.now)
    room.router.reply(member, first, b"one", room.now)
    assert sent_to(one) == [(REPLY, 5, b"one")]
    assert sent_to(other) == [(REPLY, 5, b"other")]


def test_an_id_in_use_is_not_used_again() -> None:
    room = CoreHarness()
    client, member, peer = room.client(), room.member(), room.peer("there")
    room.request(client, 1)
    with pytest.raises(DuplicateRequest):
        room.request(client, 1)
    room.peer_request(peer, 1)
    with pytest.raises(DuplicateRequest):
        room.peer_request(peer, 1)
    for _, call, *_ in sent_to(member):
        room.router.reply(member, call, b"", room.now)
    assert sent_to(client) == [(REPLY, 1, b"")]
    assert sent_to(peer) == [(REPLY, 1, b"")]
    room.request(client, 1)
    assert room.router._assigned


# Nobody, and not yet.


def test_nobody_in_the_network_is_said_at_once() -> None:
    room = CoreHarness()
    client = room.client()
    room.request(client, 1)
    ((*failed, text),) = sent_to(client)
    assert failed == [FAILED, 1, NOBODY]
    assert "'c'" in text
    assert room.leftovers() == []
    assert room.counters.outcomes == {"no_such_cluster": 1}


def test_a_peer_that_asks_for_nobody_is_refused() -> None:
    """It may know others: a member that has just left here is not its last."""
    room = CoreHarness(settled=False)
    peer = room.peer("there", 1)
    room.peer_request(peer, 1)
    room.peer_request(peer, 2, "unheard of")
    assert [message[:2] for message in sent_to(peer)] == [(REFUSED, 1), (REFUSED, 2)]
    assert room.leftovers() == []


def test_before_the_peers_have_told_a_request_waits() -> None:
    room = CoreHarness(settled=False)
    client = room.client()
    room.request(client, 1, "c")
    room.request(client, 2, "d")
    assert sent_to(client) == []
    assert len(room.router) == 2
    peer = room.peer("there", 1)
    assert [message[:3] for message in sent_to(peer)] == [(PEER_CALL, 1, "c")]
    room.router.settle(room.now)
    assert [message[:3] for message in sent_to(client)] == [(FAILED, 2, NOBODY)]
    room.request(client, 3, "d")
    assert [message[:3] for message in sent_to(client)] == [(FAILED, 3, NOBODY)]


def test_a_request_that_was_refused_before_the_peers_have_told_waits_too() -> None:
    room = CoreHarness(settled=False)
    client, member = room.client(), room.member()
    room.request(client, 1)
    room.core.programs.unregister(member)
    room.router.refused(member, request_id_of(member), "full", room.now)
    assert sent_to(client) == []
    peer = room.peer("there", 1)
    room.router.reply(peer, request_id_of(peer), b"there", room.now)
    assert sent_to(client) == [(REPLY, 1, b"there")]
    assert room.leftovers() == []


def test_what_waits_can_expire_be_cancelled_and_abandoned() -> None:
    room = CoreHarness(settled=False)
    client, other = room.client(), room.client()
    room.request(client, 1, timeout=1)
    room.request(client, 2)
    room.request(other, 1)
    room.router.cancel(client, 2)
    room.core.programs.detach(other, room.now)
    room.advance_clock(1.0)
    assert [message[:3] for message in sent_to(client)] == [(FAILED, 1, LATE)]
    assert room.leftovers() == []
    assert room.counters.outcomes == {"timed_out": 1, "cancelled": 1, "abandoned": 1}


def test_what_waited_too_long_is_not_begun() -> None:
    """The member comes after the deadline and before anybody has looked."""
    room = CoreHarness(settled=False)
    client = room.client()
    room.request(client, 1, timeout=1)
    room.now += 1.0
    member = room.member()
    assert sent_to(member) == []
    assert [message[:3] for message in sent_to(client)] == [(FAILED, 1, LATE)]
    assert room.leftovers() == []


# Refused: safe to try elsewhere.


def test_who_refuses_is_not_asked_again_and_others_are() -> None:
    room = CoreHarness()
    client = room.client()
    members = [room.member(), room.member(), room.peer("there", 1, 2)]
    room.request(client, 1)
    ids = []
    for _ in members:
        (member,) = [m for m in members if sink(m).messages]
        ids.append(request_id_of(member))
        room.router.refused(member, ids[-1], "full", room.now)
    ((*failed, text),) = sent_to(client)
    assert failed == [FAILED, 1, OVERLOADED]
    assert text == "no member of 'c' accepted the request: full"
    assert len(set(ids)) == 3, "each hand-over has an id of its own"
    assert room.counters.retries == 3
    assert room.counters.outcomes == {"overloaded": 1}
    assert room.leftovers() == []


def test_a_member_whose_outlet_is_full_was_never_asked() -> None:
    room = CoreHarness()
    client, full, member = room.client(), room.member(room=0), room.member()
    for number in range(20):
        room.request(client, number)
    assert len(sent_to(member)) == 20
    assert sent_to(full) == []
    assert sent_to(client) == []
    room.core.programs.detach(member, room.now)
    sent_to(client)
    room.request(client, 20)
    assert [message[:3] for message in sent_to(client)] == [(FAILED, 20, OVERLOADED)]
    assert room.leftovers() == []


def test_a_refusal_after_the_deadline_ends_it() -> None:
    room = CoreHarness()
    client, one, other = room.client(), room.member(), room.member()
    room.request(client, 1, timeout=1)
    room.now += 1.0
    (member,) = [m for m in (one, other) if sink(m).messages]
    room.router.refused(member, request_id_of(member), "full", room.now)
    assert sent_to(one) == sent_to(other) == []
    assert [message[:3] for message in sent_to(client)] == [(FAILED, 1, LATE)]
    assert room.leftovers() == []


def test_a_second_hand_over_has_the_time_that_is_left() -> None:
    room = CoreHarness()
    client, one, other = room.client(), room.member(), room.member()
    room.request(client, 1, timeout=5)
    room.now += 4.0
    first, second = (one, other) if sink(one).messages else (other, one)
    room.router.refused(first, request_id_of(first), "full", room.now)
    ((_, _, _, timeout, *_),) = sent_to(second)
    assert 1000 <= timeout <= 1001


def test_a_peers_request_that_all_here_refuse_goes_back_to_it() -> None:
    room = CoreHarness()
    peer, one, other = room.peer("there", 1), room.member(), room.member()
    room.peer_request(peer, 4)
    for _ in range(2):
        member = one if sink(one).messages else other
        room.router.refused(member, request_id_of(member), "full", room.now)
    assert [message[:2] for message in sent_to(peer)] == [(REFUSED, 4)]
    assert room.leftovers() == []


# Lost: perhaps begun.


def test_what_a_lost_member_had_fails_at_once() -> None:
    room = CoreHarness()
    client, member, other = room.client(), room.member(), room.member("d")
    room.request(client, 1)
    room.request(client, 2, "d")
    room.core.programs.detach(member, room.now)
    assert [message[:3] for message in sent_to(client)] == [(FAILED, 1, LOST)]
    assert len(sent_to(other)) == 1
    assert room.counters.outcomes == {"member_lost": 1}


def test_what_a_lost_peer_had_fails_at_once() -> None:
    room = CoreHarness()
    client, peer = room.client(), room.peer("there", 1)
    room.request(client, 1)
    room.core.peers.unlink(peer, room.now)
    assert [message[:3] for message in sent_to(client)] == [(FAILED, 1, LOST)]
    assert room.leftovers() == []
    room.request(client, 2)
    assert [message[:3] for message in sent_to(client)] == [(FAILED, 2, NOBODY)]


def test_an_idempotent_request_is_tried_again() -> None:
    room = CoreHarness()
    client, one, other = room.client(), room.member(), room.member()
    room.request(client, 1, idempotent=True)
    first, second = (one, other) if sink(one).messages else (other, one)
    lost = request_id_of(first)
    room.core.programs.detach(first, room.now)
    call = request_id_of(second)
    assert call != lost
    room.router.reply(second, call, b"again", room.now)
    assert sent_to(client) == [(REPLY, 1, b"again")]
    assert room.leftovers() == []


def test_an_idempotent_request_that_nobody_is_left_for_was_lost_not_refused() -> None:
    """Overloaded promises that no handler was started."""
    room = CoreHarness()
    client, one, other = room.client(), room.member(), room.member()
    room.request(client, 1, idempotent=True)
    first, second = (one, other) if sink(one).messages else (other, one)
    room.core.programs.detach(first, room.now)
    room.router.refused(second, request_id_of(second), "full", room.now)
    assert [message[:3] for message in sent_to(client)] == [(FAILED, 1, LOST)]
    room.request(client, 2, idempotent=True)
    room.core.programs.detach(second, room.now)
    assert [message[:3] for message in sent_to(client)] == [(FAILED, 2, LOST)]
    assert room.leftovers() == []


def test_a_peer_tells_that_its_member_was_lost() -> None:
    room = CoreHarness()
    client, peer = room.client(), room.peer("there", 1)
    room.request(client, 1)
    call = request_id_of(peer)
    member = room.member()
    room.router.failed(peer, call, LOST, "it died", room.now)
    assert sent_to(client) == [(FAILED, 1, LOST, "it died")]
    assert sent_to(member) == [], "it may have been begun"
    assert room.leftovers() == []


def test_an_idempotent_request_that_a_peers_member_lost_is_tried_again() -> None:
    room = CoreHarness()
    client, peer = room.client(), room.peer("there", 1)
    room.request(client, 1, idempotent=True)
    call = request_id_of(peer)
    member = room.member()
    room.router.failed(peer, call, LOST, "it died", room.now)
    room.router.reply(member, request_id_of(member), b"again", room.now)
    assert sent_to(client) == [(REPLY, 1, b"again")]
    room.core.programs.detach(member, room.now)
    room.request(client, 2, idempotent=True)
    room.router.failed(peer, request_id_of(peer), LOST, "", room.now)
    assert sent_to(client) == [(FAILED, 2, LOST, "")]
    assert room.leftovers() == []


def test_what_a_lost_program_asked_is_dropped_where_it_is() -> None:
    room = CoreHarness()
    client, member, peer = room.client(), room.member(), room.peer("there", 1, cluster="d")
    room.request(client, 1)
    room.request(client, 2, "d")
    here, there = request_id_of(member), request_id_of(peer)
    room.core.programs.detach(client, room.now)
    assert sent_to(peer) == [(DROP_CALL, there)]
    room.router.reply(member, here, b"", room.now)
    room.router.reply(peer, there, b"", room.now)
    assert room.counters.drops == {"late_reply": 2}
    assert room.leftovers() == []


def test_a_program_that_asks_itself_and_goes_leaves_nothing() -> None:
    room = CoreHarness()
    member = room.member()
    room.request(member, 1, idempotent=True)
    room.core.programs.detach(member, room.now)
    assert room.leftovers() == []
    assert room.counters.outcomes == {"abandoned": 1}


# Leaving.


def test_a_member_that_leaves_still_answers_what_it_has() -> None:
    room = CoreHarness()
    client, member = room.client(), room.member()
    room.request(client, 1)
    room.core.programs.unregister(member)
    room.request(client, 2)
    room.router.reply(member, request_id_of(member), b"done", room.now)
    assert [message[:3] for message in sent_to(client)] == [
        (FAILED, 2, NOBODY),
        (REPLY, 1, b"done"),
    ]
    assert room.leftovers() == []


def test_what_a_leaving_peer_never_accepted_goes_elsewhere() -> None:
    room = CoreHarness()
    client, peer = room.client(), room.peer("there", 1)
    for number in (1, 2, 3):
        room.request(client, number)
    accepted, _, _ = (call for _, call, *_ in sent_to(peer))
    member = room.member()
    room.core.peers.drain(peer, accepted, room.now)
    room.request(client, 4)
    assert sent_to(peer) == []
    for _, call, *_ in sent_to(member):
        room.router.reply(member, call, b"here", room.now)
    room.router.reply(peer, accepted, b"there", room.now)
    assert sorted(sent_to(client)) == [
        (REPLY, 1, b"there"),
        (REPLY, 2, b"here"),
        (REPLY, 3, b"here"),
        (REPLY, 4, b"here"),
    ]
    assert room.leftovers() == []


def test_a_leaving_relay_accepts_nothing_new() -> None:
    """Programs were told by the goodbye; peers are told for each, in case they had not heard."""
    room = CoreHarness()
    client, member, peer = room.client(), room.member(), room.peer("there")
    room.request(client, 5)
    room.peer_request(peer, 5)
    room.router.draining = True
    room.request(client, 6)
    room.peer_request(peer, 6)
    assert len(sent_to(member)) == 2
    assert sent_to(client) == []
    assert [message[:2] for message in sent_to(peer)] == [(REFUSED, 6)]
    room.request(client, 4)
    assert len(sent_to(member)) == 1, "it was on its way in pieces when the goodbye was said"
    assert (client.last_request_id, peer.last_request_id) == (5, 5)


# What the balancer is told.


@pytest.mark.parametrize("failure", ["fault", "refused", "expired", "full"])
def test_a_failure_is_held_against_who_failed(failure: str) -> None:
    room = CoreHarness()
    client, member = room.client(), room.member(room=0 if failure == "full" else None)
    (candidate,) = room.core.directory.clusters["c"].draws
    room.request(client, 1)
    if failure == "fault":
        room.router.fault(member, request_id_of(member), "E", "", room.now)
    elif failure == "refused":
        room.router.refused(member, request_id_of(member), "full", room.now)
    elif failure == "expired":
        room.advance_clock(5.0)
    assert candidate.penalty > 0
    assert candidate.penalised_at == room.now


@pytest.mark.parametrize("patience", [0.001, 0.25])
def test_a_caller_with_little_patience_tells_little_about_a_member(patience: float) -> None:
    room = CoreHarness()
    client, _ = room.client(), room.member()
    (candidate,) = room.core.directory.clusters["c"].draws
    room.request(client, 1, timeout=patience)
    room.advance_clock(patience)
    assert candidate.penalty == pytest.approx(REFUSAL * patience)


def test_an_answer_is_held_against_nobody() -> None:
    room = CoreHarness()
    client, member = room.client(), room.member()
    (candidate,) = room.core.directory.clusters["c"].draws
    for number in range(3):
        room.request(client, number)
        room.router.reply(member, request_id_of(member), b"", room.now)
    room.request(client, 3)
    room.router.cancel(client, 3)
    assert candidate.penalty == 0
    assert candidate.answered == 3


# Cancelled, and late.


def test_a_stop_that_finds_no_room_is_counted() -> None:
    room = CoreHarness()
    client, member = room.client(), room.member(room=1)
    room.request(client, 1)
    room.router.cancel(client, 1)
    request_id_of(member)  # nothing else
    assert room.counters.drops["cancel_queue_full"] == 1
    assert room.leftovers() == []


def test_a_cancelled_request_is_nobodys() -> None:
    room = CoreHarness()
    client, member, peer = room.client(), room.member(), room.peer("there", 1, cluster="d")
    room.request(client, 1)
    room.request(client, 2, "d")
    here, there = request_id_of(member), request_id_of(peer)
    room.router.cancel(client, 1)
    room.router.cancel(client, 2)
    room.router.cancel(client, 2)
    room.router.cancel(client, 99)
    assert sent_to(peer) == [(DROP_CALL, there)]
    assert sent_to(member) == [(STOP, here)]
    room.router.reply(member, here, b"", room.now)
    assert sent_to(client) == []
    assert room.counters.outcomes == {"cancelled": 2}
    assert room.counters.drops == {"late_reply": 1}
    assert room.leftovers() == []


def test_a_deadline_ends_a_request() -> None:
    room = CoreHarness()
    client, member, peer = room.client(), room.member(), room.peer("there")
    room.request(client, 1, timeout=1.0)
    room.request(client, 2, timeout=3.0)
    room.peer_request(peer, 1, timeout=1.0)
    calls = [call for _, call, *_ in sent_to(member)]
    room.advance_clock(0.999)
    assert sent_to(client) == []
    room.advance_clock(0.001)
    assert [message[:3] for message in sent_to(client)] == [(FAILED, 1, LATE)]
    assert sent_to(peer) == [], "its own clock tells its program"
    for call in calls:
        room.router.reply(member, call, b"", room.now)
    assert sent_to(client) == [(REPLY, 2, b"")]
    assert room.counters.drops == {"late_reply": 2}
    assert room.leftovers() == []


def test_what_expired_on_the_way_is_not_begun() -> None:
    room = CoreHarness()
    member, peer = room.member(), room.peer("there")
    for timeout in (0.0, -3.0):
        room.peer_request(peer, 1, timeout=timeout)
    client = room.client()
    room.request(client, 1, timeout=0)
    assert sent_to(member) == []
    assert [message[:3] for message in sent_to(client)] == [(FAILED, 1, LATE)]
    assert room.counters.drops == {"expired_in_transit": 2}
    assert room.leftovers() == []


@pytest.mark.parametrize("outcome", ["reply", "fault", "refused", "failed"])
def test_only_who_has_a_call_may_end_it(outcome: str) -> None:
    room = CoreHarness()
    client, member = room.client(), room.member()
    wrong = [room.client(), room.member("d"), room.peer("there", 1, cluster="d"), client]
    room.request(client, 1)
    call = request_id_of(member)
    fields = {
        "reply": (b"forged",),
        "fault": ("Forged", ""),
        "refused": ("forged",),
        "failed": (LOST, "forged"),
    }
    for endpoint in wrong:
        getattr(room.router, outcome)(endpoint, call, *fields[outcome], room.now)
    getattr(room.router, outcome)(member, call + 1, *fields[outcome], room.now)
    assert sent_to(client) == []
    room.router.reply(member, call, b"true", room.now)
    room.router.reply(member, call, b"twice", room.now)
    assert sent_to(client) == [(REPLY, 1, b"true")]
    assert room.counters.drops == {"late_reply": len(wrong) + 2}


def test_an_answer_to_the_first_hand_over_is_none_to_the_second() -> None:
    """The peer refuses, then comes to its senses: by then somebody else has the request."""
    room = CoreHarness()
    client, peer = room.client(), room.peer("there", 1)
    room.request(client, 1)
    first = request_id_of(peer)
    member = room.member()
    room.router.refused(peer, first, "full", room.now)
    room.router.reply(peer, first, b"after all", room.now)
    assert sent_to(client) == []
    room.router.reply(member, request_id_of(member), b"right", room.now)
    assert sent_to(client) == [(REPLY, 1, b"right")]


def test_an_answer_without_room_is_counted() -> None:
    room = CoreHarness()
    client, member, peer = room.client(), room.member(), room.peer("there")
    sink(client).room = sink(peer).room = 0
    for number in range(3):
        room.request(client, number)
        room.peer_request(peer, number)
    first, second, third, fourth, *rest = (call for _, call, *_ in sent_to(member))
    room.router.reply(member, first, b"", room.now)
    room.router.reply(member, second, b"", room.now)
    room.router.fault(member, third, "E", "", room.now)
    room.router.refused(member, fourth, "full", room.now)
    assert room.counters.drops["reply_queue_full"] == 4
    room.core.programs.detach(member, room.now)
    assert room.counters.drops["reply_queue_full"] == 4 + len(rest)
    assert room.leftovers() == []


# Bounds.


def test_a_party_may_have_so_many_requests_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PENDING_REQUESTS", 3)
    room = CoreHarness()
    client, member, peer = room.client(), room.member(), room.peer("there")
    for number in range(1, 5):
        room.request(client, number)
        room.peer_request(peer, number)
    assert [message[:3] for message in sent_to(client)] == [(FAILED, 4, OVERLOADED)]
    assert [message[:2] for message in sent_to(peer)] == [(REFUSED, 4)], "others may have room"
    for _, call, *_ in sent_to(member):
        room.router.reply(member, call, b"", room.now)
    assert len(sent_to(client)) == 3
    room.request(client, 5)
    assert len(sent_to(member)) == 1


def test_a_party_may_leave_so_many_octets_in_our_care(monkeypatch: pytest.MonkeyPatch) -> None:
    header = 128 + len("hv")  # each request has one
    monkeypatch.setattr(module, "HELD_LIMIT", 2 * header + 100)
    room = CoreHarness()
    client, other, member = room.client(), room.client(), room.member()
    room.request(client, 1, body=bytes(60))
    room.request(client, 2, body=bytes(41))
    room.request(other, 1, body=bytes(header + 100))
    assert [message[:3] for message in sent_to(client)] == [(FAILED, 2, OVERLOADED)]
    assert len(sent_to(member)) == 2
    room.router.cancel(client, 1)
    room.request(client, 3, body=bytes(header + 100))
    assert [message[0] for message in sent_to(member)] == [STOP, CALL]
    assert client.held_bytes == 2 * header + 100


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("there", [False, True])
def test_what_takes_a_large_request_back_cannot_pass_it(special: bool, there: bool) -> None:
    room = CoreHarness()
    client = room.client()
    assignee = room.peer("there", 1) if there else room.member()
    if special:
        fields = (client, 1, "c", bytes(CHUNK + 1), room.now + 5, "s", None)
        room.router.request(DirectedRequest(*fields, member=None, tunnel=None), room.now)
    else:
        room.request(client, 1, body=bytes(CHUNK + 1))
    room.router.cancel(client, 1)
    assert [m[0] for m in assignee.sink.messages][1:] == [DROP_CALL if there else STOP]
    first, second = assignee.sink.orders
    assert first == second
    assert first is not None
