"""The router: each request ends exactly once. Unless idempotent, it is started at most once."""

from __future__ import annotations

import pytest

from arke.wire.messages import Failure
from arke_relay.core.balancer import REFUSAL
from arke_relay.core.router import DuplicateRequest
from support.core_harness import (
    DELIVER_REQUEST,
    FAILED,
    FAULT,
    PEER_CANCEL,
    PEER_REQUEST,
    REFUSED,
    REPLY,
    CoreHarness,
    request_id_of,
    sent_to,
)
from support.core_harness import sink_of as sink

NO_SUCH_CLUSTER = Failure.NO_SUCH_CLUSTER
LOST = Failure.MEMBER_LOST
OVERLOADED = Failure.OVERLOADED
TIMED_OUT = Failure.TIMED_OUT


# A request and its outcome.


def test_request_reaches_a_member_and_its_reply_returns() -> None:
    harness = CoreHarness()
    caller, member = harness.caller(), harness.member()
    harness.request(caller, 3)
    ((op, request_id, body, timeout, stamp, sender, headers),) = sent_to(member)
    assert (op, body, sender, headers) == (DELIVER_REQUEST, b"body", caller.sender, {"h": "v"})
    assert 5000 <= timeout <= 5001
    assert stamp == harness.now * 1000
    harness.router.reply(member, request_id, b"answer", harness.now + 0.002)
    assert sent_to(caller) == [(REPLY, 3, b"answer")]
    assert harness.leftovers() == []
    assert harness.counters.outcomes == {"replied": 1}
    assert sum(harness.counters.latency) == 1
    assert harness.counters.latency_sum == pytest.approx(0.002)


def test_request_to_a_peer_carries_expiry_and_program() -> None:
    harness = CoreHarness()
    caller, peer = harness.caller(), harness.peer("there", 1)
    harness.request(caller, 3)
    ((op, request_id, cluster, body, expiry, number, headers),) = sent_to(peer)
    assert (op, cluster, body, number) == (PEER_REQUEST, "c", b"body", caller.id)
    assert headers == {"h": "v"}
    assert expiry == pytest.approx((harness.now + 5) * 1000, abs=1)
    harness.router.reply(peer, request_id, b"answer", harness.now)
    assert sent_to(caller) == [(REPLY, 3, b"answer")]
    assert harness.leftovers() == []


def test_request_of_a_peer_goes_only_to_local_members() -> None:
    harness = CoreHarness()
    asking, other, member = harness.peer("asking"), harness.peer("other", 1, 2, 3), harness.member()
    for number in range(20):
        harness.peer_request(asking, number)
        ((_, request_id, _, _, _, sender, _),) = sent_to(member)
        assert sender == "asking/7"
        harness.router.reply(member, request_id, b"answer", harness.now)
    assert sent_to(other) == []
    assert sent_to(asking) == [(REPLY, number, b"answer") for number in range(20)]
    assert harness.leftovers() == []
    assert not harness.counters.outcomes, "only the origin's relay counts the outcome"


def test_fault_keeps_its_type_and_text() -> None:
    harness = CoreHarness()
    caller, member = harness.caller(), harness.member()
    harness.request(caller, 1)
    harness.router.fault(member, request_id_of(member), "ValueError", "no", harness.now)
    assert sent_to(caller) == [(FAULT, 1, "ValueError", "no")]
    assert harness.leftovers() == []
    assert harness.counters.outcomes == {"faulted": 1}


def test_programs_choose_their_own_request_ids() -> None:
    harness = CoreHarness()
    one, other, member = harness.caller(), harness.caller(), harness.member()
    harness.request(one, 5)
    harness.request(other, 5)
    first, second = (request_id for _, request_id, *_ in sent_to(member))
    harness.router.reply(member, second, b"other", harness.now)
    harness.router.reply(member, first, b"one", harness.now)
    assert sent_to(one) == [(REPLY, 5, b"one")]
    assert sent_to(other) == [(REPLY, 5, b"other")]


def test_request_id_in_use_is_rejected() -> None:
    harness = CoreHarness()
    caller, member, peer = harness.caller(), harness.member(), harness.peer("there")
    harness.request(caller, 1)
    with pytest.raises(DuplicateRequest):
        harness.request(caller, 1)
    harness.peer_request(peer, 1)
    with pytest.raises(DuplicateRequest):
        harness.peer_request(peer, 1)
    for _, request_id, *_ in sent_to(member):
        harness.router.reply(member, request_id, b"", harness.now)
    assert sent_to(caller) == [(REPLY, 1, b"")]
    assert sent_to(peer) == [(REPLY, 1, b"")]
    harness.request(caller, 1)
    assert harness.router._assigned


# Clusters without members.


def test_unknown_cluster_fails_at_once() -> None:
    harness = CoreHarness()
    caller = harness.caller()
    harness.request(caller, 1)
    ((*failed, text),) = sent_to(caller)
    assert failed == [FAILED, 1, NO_SUCH_CLUSTER]
    assert "'c'" in text
    assert harness.leftovers() == []
    assert harness.counters.outcomes == {"no_such_cluster": 1}


def test_request_of_a_peer_for_an_unknown_cluster_is_refused() -> None:
    """REFUSED lets the peer retry: other nodes may still have members."""
    harness = CoreHarness(settled=False)
    peer = harness.peer("there", 1)
    harness.peer_request(peer, 1)
    harness.peer_request(peer, 2, "unknown")
    assert [message[:2] for message in sent_to(peer)] == [(REFUSED, 1), (REFUSED, 2)]
    assert harness.leftovers() == []


def test_request_waits_until_directories_are_synchronised() -> None:
    harness = CoreHarness(settled=False)
    caller = harness.caller()
    harness.request(caller, 1, "c")
    harness.request(caller, 2, "d")
    assert sent_to(caller) == []
    assert len(harness.router) == 2
    peer = harness.peer("there", 1)
    assert [message[:3] for message in sent_to(peer)] == [(PEER_REQUEST, 1, "c")]
    harness.router.settle(harness.now)
    assert [message[:3] for message in sent_to(caller)] == [(FAILED, 2, NO_SUCH_CLUSTER)]
    harness.request(caller, 3, "d")
    assert [message[:3] for message in sent_to(caller)] == [(FAILED, 3, NO_SUCH_CLUSTER)]


def test_refused_request_waits_until_directories_are_synchronised() -> None:
    harness = CoreHarness(settled=False)
    caller, member = harness.caller(), harness.member()
    harness.request(caller, 1)
    harness.core.programs.unregister(member)
    harness.router.refused(member, request_id_of(member), "full", harness.now)
    assert sent_to(caller) == []
    peer = harness.peer("there", 1)
    harness.router.reply(peer, request_id_of(peer), b"there", harness.now)
    assert sent_to(caller) == [(REPLY, 1, b"there")]
    assert harness.leftovers() == []


def test_waiting_requests_expire_and_can_be_cancelled_or_abandoned() -> None:
    harness = CoreHarness(settled=False)
    caller, other = harness.caller(), harness.caller()
    harness.request(caller, 1, timeout=1)
    harness.request(caller, 2)
    harness.request(other, 1)
    harness.router.cancel(caller, 2)
    harness.core.programs.detach(other, harness.now)
    harness.advance_clock(1.0)
    assert [message[:3] for message in sent_to(caller)] == [(FAILED, 1, TIMED_OUT)]
    assert harness.leftovers() == []
    assert harness.counters.outcomes == {"timed_out": 1, "cancelled": 1, "abandoned": 1}


def test_request_that_expired_while_waiting_is_not_started() -> None:
    """The member registers after the deadline and before the relay's timer runs."""
    harness = CoreHarness(settled=False)
    caller = harness.caller()
    harness.request(caller, 1, timeout=1)
    harness.now += 1.0
    member = harness.member()
    assert sent_to(member) == []
    assert [message[:3] for message in sent_to(caller)] == [(FAILED, 1, TIMED_OUT)]
    assert harness.leftovers() == []


# Refused requests: no handler has started, so a retry is safe.


def test_refused_request_is_retried_on_other_members_only() -> None:
    harness = CoreHarness()
    caller = harness.caller()
    members = [harness.member(), harness.member(), harness.peer("there", 1, 2)]
    harness.request(caller, 1)
    ids = []
    for _ in members:
        (member,) = [m for m in members if sink(m).messages]
        ids.append(request_id_of(member))
        harness.router.refused(member, ids[-1], "full", harness.now)
    ((*failed, text),) = sent_to(caller)
    assert failed == [FAILED, 1, OVERLOADED]
    assert text == "no member of 'c' accepted the request: full"
    assert len(set(ids)) == 3, "each attempt has its own id"
    assert harness.counters.retries == 3
    assert harness.counters.outcomes == {"overloaded": 1}
    assert harness.leftovers() == []


def test_member_with_a_full_sink_is_skipped() -> None:
    harness = CoreHarness()
    caller, full, member = harness.caller(), harness.member(room=0), harness.member()
    for number in range(20):
        harness.request(caller, number)
    assert len(sent_to(member)) == 20
    assert sent_to(full) == []
    assert sent_to(caller) == []
    harness.core.programs.detach(member, harness.now)
    sent_to(caller)
    harness.request(caller, 20)
    assert [message[:3] for message in sent_to(caller)] == [(FAILED, 20, OVERLOADED)]
    assert harness.leftovers() == []


def test_refusal_after_the_deadline_times_out() -> None:
    harness = CoreHarness()
    caller, one, other = harness.caller(), harness.member(), harness.member()
    harness.request(caller, 1, timeout=1)
    harness.now += 1.0
    (member,) = [m for m in (one, other) if sink(m).messages]
    harness.router.refused(member, request_id_of(member), "full", harness.now)
    assert sent_to(one) == sent_to(other) == []
    assert [message[:3] for message in sent_to(caller)] == [(FAILED, 1, TIMED_OUT)]
    assert harness.leftovers() == []


def test_retry_carries_the_remaining_time() -> None:
    harness = CoreHarness()
    caller, one, other = harness.caller(), harness.member(), harness.member()
    harness.request(caller, 1, timeout=5)
    harness.now += 4.0
    first, second = (one, other) if sink(one).messages else (other, one)
    harness.router.refused(first, request_id_of(first), "full", harness.now)
    ((_, _, _, timeout, *_),) = sent_to(second)
    assert 1000 <= timeout <= 1001


def test_request_refused_by_all_local_members_returns_to_the_peer() -> None:
    harness = CoreHarness()
    peer, one, other = harness.peer("there", 1), harness.member(), harness.member()
    harness.peer_request(peer, 4)
    for _ in range(2):
        member = one if sink(one).messages else other
        harness.router.refused(member, request_id_of(member), "full", harness.now)
    assert [message[:2] for message in sent_to(peer)] == [(REFUSED, 4)]
    assert harness.leftovers() == []


# Lost requests: a handler may have started.


def test_requests_of_a_lost_member_fail_at_once() -> None:
    harness = CoreHarness()
    caller, member, other = harness.caller(), harness.member(), harness.member("d")
    harness.request(caller, 1)
    harness.request(caller, 2, "d")
    harness.core.programs.detach(member, harness.now)
    assert [message[:3] for message in sent_to(caller)] == [(FAILED, 1, LOST)]
    assert len(sent_to(other)) == 1
    assert harness.counters.outcomes == {"member_lost": 1}


def test_requests_of_a_lost_peer_fail_at_once() -> None:
    harness = CoreHarness()
    caller, peer = harness.caller(), harness.peer("there", 1)
    harness.request(caller, 1)
    harness.core.peers.unlink(peer, harness.now)
    assert [message[:3] for message in sent_to(caller)] == [(FAILED, 1, LOST)]
    assert harness.leftovers() == []
    harness.request(caller, 2)
    assert [message[:3] for message in sent_to(caller)] == [(FAILED, 2, NO_SUCH_CLUSTER)]


def test_idempotent_request_is_retried_after_a_loss() -> None:
    harness = CoreHarness()
    caller, one, other = harness.caller(), harness.member(), harness.member()
    harness.request(caller, 1, idempotent=True)
    first, second = (one, other) if sink(one).messages else (other, one)
    lost = request_id_of(first)
    harness.core.programs.detach(first, harness.now)
    request_id = request_id_of(second)
    assert request_id != lost
    harness.router.reply(second, request_id, b"again", harness.now)
    assert sent_to(caller) == [(REPLY, 1, b"again")]
    assert harness.leftovers() == []


def test_idempotent_request_without_another_member_fails_as_lost() -> None:
    """OVERLOADED promises that no handler has started."""
    harness = CoreHarness()
    caller, one, other = harness.caller(), harness.member(), harness.member()
    harness.request(caller, 1, idempotent=True)
    first, second = (one, other) if sink(one).messages else (other, one)
    harness.core.programs.detach(first, harness.now)
    harness.router.refused(second, request_id_of(second), "full", harness.now)
    assert [message[:3] for message in sent_to(caller)] == [(FAILED, 1, LOST)]
    harness.request(caller, 2, idempotent=True)
    harness.core.programs.detach(second, harness.now)
    assert [message[:3] for message in sent_to(caller)] == [(FAILED, 2, LOST)]
    assert harness.leftovers() == []


def test_peer_reports_a_lost_member() -> None:
    harness = CoreHarness()
    caller, peer = harness.caller(), harness.peer("there", 1)
    harness.request(caller, 1)
    request_id = request_id_of(peer)
    member = harness.member()
    harness.router.failed(peer, request_id, LOST, "it died", harness.now)
    assert sent_to(caller) == [(FAILED, 1, LOST, "it died")]
    assert sent_to(member) == [], "a handler may have started"
    assert harness.leftovers() == []


def test_idempotent_request_is_retried_after_a_peer_lost_its_member() -> None:
    harness = CoreHarness()
    caller, peer = harness.caller(), harness.peer("there", 1)
    harness.request(caller, 1, idempotent=True)
    request_id = request_id_of(peer)
    member = harness.member()
    harness.router.failed(peer, request_id, LOST, "it died", harness.now)
    harness.router.reply(member, request_id_of(member), b"again", harness.now)
    assert sent_to(caller) == [(REPLY, 1, b"again")]
    harness.core.programs.detach(member, harness.now)
    harness.request(caller, 2, idempotent=True)
    harness.router.failed(peer, request_id_of(peer), LOST, "", harness.now)
    assert sent_to(caller) == [(FAILED, 2, LOST, "")]
    assert harness.leftovers() == []


def test_requests_of_a_lost_caller_are_cancelled_at_the_member() -> None:
    harness = CoreHarness()
    caller, member, peer = harness.caller(), harness.member(), harness.peer("there", 1, cluster="d")
    harness.request(caller, 1)
    harness.request(caller, 2, "d")
    here, there = request_id_of(member), request_id_of(peer)
    harness.core.programs.detach(caller, harness.now)
    assert sent_to(peer) == [(PEER_CANCEL, there)]
    harness.router.reply(member, here, b"", harness.now)
    harness.router.reply(peer, there, b"", harness.now)
    assert harness.counters.drops == {"late_reply": 2}
    assert harness.leftovers() == []


def test_program_that_requests_itself_and_detaches_leaves_no_state() -> None:
    harness = CoreHarness()
    member = harness.member()
    harness.request(member, 1, idempotent=True)
    harness.core.programs.detach(member, harness.now)
    assert harness.leftovers() == []
    assert harness.counters.outcomes == {"abandoned": 1}


# Shutdown.


def test_unregistered_member_still_answers_its_requests() -> None:
    harness = CoreHarness()
    caller, member = harness.caller(), harness.member()
    harness.request(caller, 1)
    harness.core.programs.unregister(member)
    harness.request(caller, 2)
    harness.router.reply(member, request_id_of(member), b"done", harness.now)
    assert [message[:3] for message in sent_to(caller)] == [
        (FAILED, 2, NO_SUCH_CLUSTER),
        (REPLY, 1, b"done"),
    ]
    assert harness.leftovers() == []


def test_requests_that_a_draining_peer_did_not_accept_are_retried() -> None:
    harness = CoreHarness()
    caller, peer = harness.caller(), harness.peer("there", 1)
    for number in (1, 2, 3):
        harness.request(caller, number)
    accepted, _, _ = (request_id for _, request_id, *_ in sent_to(peer))
    member = harness.member()
    harness.core.peers.drain(peer, accepted, harness.now)
    harness.request(caller, 4)
    assert sent_to(peer) == []
    for _, request_id, *_ in sent_to(member):
        harness.router.reply(member, request_id, b"here", harness.now)
    harness.router.reply(peer, accepted, b"there", harness.now)
    assert sorted(sent_to(caller)) == [
        (REPLY, 1, b"there"),
        (REPLY, 2, b"here"),
        (REPLY, 3, b"here"),
        (REPLY, 4, b"here"),
    ]
    assert harness.leftovers() == []


def test_draining_relay_accepts_no_request_after_the_last_one() -> None:
    """Programs have received DRAINING. Peers get REFUSED, in case DRAINING has not arrived."""
    harness = CoreHarness()
    caller, member, peer = harness.caller(), harness.member(), harness.peer("there")
    harness.request(caller, 5)
    harness.peer_request(peer, 5)
    harness.router.draining = True
    harness.request(caller, 6)
    harness.peer_request(peer, 6)
    assert len(sent_to(member)) == 2
    assert sent_to(caller) == []
    assert [message[:2] for message in sent_to(peer)] == [(REFUSED, 6)]
    harness.request(caller, 4)
    assert len(sent_to(member)) == 1, "its id is below the last accepted one: it was in transit"
    assert (caller.last_request_id, peer.last_request_id) == (5, 5)


# Penalties.


@pytest.mark.parametrize("failure", ["fault", "refused", "expired", "full"])
def test_failure_penalises_the_member_that_failed(failure: str) -> None:
    harness = CoreHarness()
    caller, member = harness.caller(), harness.member(room=0 if failure == "full" else None)
    (candidate,) = harness.core.directory.clusters["c"].draws
    harness.request(caller, 1)
    if failure == "fault":
        harness.router.fault(member, request_id_of(member), "E", "", harness.now)
    elif failure == "refused":
        harness.router.refused(member, request_id_of(member), "full", harness.now)
    elif failure == "expired":
        harness.advance_clock(5.0)
    assert candidate.penalty > 0
    assert candidate.penalised_at == harness.now


@pytest.mark.parametrize("patience", [0.001, 0.25])
def test_short_timeout_penalises_a_member_less(patience: float) -> None:
    harness = CoreHarness()
    caller, _ = harness.caller(), harness.member()
    (candidate,) = harness.core.directory.clusters["c"].draws
    harness.request(caller, 1, timeout=patience)
    harness.advance_clock(patience)
    assert candidate.penalty == pytest.approx(REFUSAL * patience)


def test_reply_penalises_no_member() -> None:
    harness = CoreHarness()
    caller, member = harness.caller(), harness.member()
    (candidate,) = harness.core.directory.clusters["c"].draws
    for number in range(3):
        harness.request(caller, number)
        harness.router.reply(member, request_id_of(member), b"", harness.now)
    harness.request(caller, 3)
    harness.router.cancel(caller, 3)
    assert candidate.penalty == 0
    assert candidate.answered == 3
