"""Broadcasts and publications: receivers, messages, order and counters."""

from __future__ import annotations

import pytest

from arke.wire.limits import CHUNK
from arke.wire.messages import Op, PeerOp
from arke_relay.core.endpoints import Endpoint, Peer
from support.core_harness import CoreHarness, sent_to, sink_of
from support.recording_sink import RecordingSink

DELIVER_BROADCAST, EVENT = Op.DELIVER_BROADCAST.value, Op.DELIVER_EVENT.value
PEER_BROADCAST, PEER_EVENT = PeerOp.BROADCAST.value, PeerOp.PUBLISH.value

HEADERS = {"h": "v"}
LARGE = bytes(CHUNK + 1)


class Audience:
    """Local members and subscribers, two peers with members, and endpoints of another cluster."""

    def __init__(self) -> None:
        self.room = harness = CoreHarness()
        self.sender = harness.caller()
        self.members = [harness.member("c"), harness.member("c"), harness.member("d")]
        self.peers = [harness.peer("one", 1, 2), harness.peer("other", 3, cluster="d")]
        core = harness.core
        for endpoint in (self.members[0], self.members[2]):
            core.programs.subscribe(endpoint, "t")
        core.directory.subscribe("t", self.peers[0])
        self.endpoints: list[Endpoint] = [self.sender, *self.members, *self.peers]

    def received(self) -> dict[Endpoint, list[tuple[object, ...]]]:
        return {each: messages for each in self.endpoints if (messages := sent_to(each))}


@pytest.mark.parametrize("body", [b"", b"body", LARGE])
@pytest.mark.parametrize("headers", [None, HEADERS])
def test_broadcast_reaches_every_member_once(body: bytes, headers: dict[str, str] | None) -> None:
    audience = Audience()
    sender = audience.sender
    audience.room.core.broadcasts.broadcast(sender, "c", body, headers)
    here = (DELIVER_BROADCAST, body, sender.sender, headers)
    assert audience.received() == {
        audience.members[0]: [here],
        audience.members[1]: [here],
        audience.peers[0]: [(PEER_BROADCAST, "c", body, sender.id, headers)],
    }, "one copy for a peer, however many members it has"


@pytest.mark.parametrize("body", [b"", b"body", LARGE])
@pytest.mark.parametrize("headers", [None, HEADERS])
def test_event_reaches_every_subscriber_once(body: bytes, headers: dict[str, str] | None) -> None:
    audience = Audience()
    sender = audience.sender
    audience.room.core.broadcasts.publish(sender, "t", body, headers)
    here = (EVENT, "t", body, sender.sender, headers)
    assert audience.received() == {
        audience.members[0]: [here],
        audience.members[2]: [here],
        audience.peers[0]: [(PEER_EVENT, "t", body, sender.id, headers)],
    }


@pytest.mark.parametrize("body", [b"body", LARGE])
def test_fanout_of_a_peer_goes_only_to_local_programs(body: bytes) -> None:
    audience = Audience()
    broadcasts = audience.room.core.broadcasts
    peer = audience.peers[1]
    broadcasts.peer_broadcast(peer, "c", body, 7, HEADERS)
    broadcasts.peer_publish(peer, "t", body, 7, None)
    broadcast, event = (
        (DELIVER_BROADCAST, body, "other/7", HEADERS),
        (EVENT, "t", body, "other/7", None),
    )
    assert audience.received() == {
        audience.members[0]: [broadcast, event],
        audience.members[1]: [broadcast],
        audience.members[2]: [event],
    }


def test_packed_messages_stay_packed() -> None:
    audience = Audience()
    bodies = (b"one", b"other")
    audience.room.core.broadcasts.publish(audience.sender, "t", bodies, None)
    got = audience.received()
    assert [message[2] for messages in got.values() for message in messages] == [bodies] * 3
    assert audience.room.counters.published == 2


def test_sender_receives_its_own_fanout_if_it_subscribes() -> None:
    harness = CoreHarness()
    member = harness.member("c")
    harness.core.programs.subscribe(member, "t")
    harness.core.broadcasts.broadcast(member, "c", b"body", None)
    harness.core.broadcasts.publish(member, "t", b"body", None)
    assert [message[0] for message in sent_to(member)] == [DELIVER_BROADCAST, EVENT]


def test_fanout_without_receivers_is_dropped() -> None:
    audience = Audience()
    broadcasts = audience.room.core.broadcasts
    broadcasts.broadcast(audience.sender, "unknown", b"", None)
    broadcasts.publish(audience.sender, "unknown", b"", None)
    broadcasts.peer_broadcast(audience.peers[0], "unknown", b"", 1, None)
    broadcasts.peer_publish(audience.peers[0], "unknown", b"", 1, None)
    assert audience.received() == {}
    assert not audience.room.counters.drops


def test_detached_program_gets_no_fanout() -> None:
    audience = Audience()
    core = audience.room.core
    core.programs.unregister(audience.members[0])
    core.programs.unsubscribe(audience.members[0], "t")
    core.programs.detach(audience.members[1], 0.0)
    core.peers.unlink(audience.peers[0], 0.0)
    core.broadcasts.broadcast(audience.sender, "c", b"", None)
    core.broadcasts.publish(audience.sender, "t", b"", None)
    assert list(audience.received()) == [audience.members[2]]


@pytest.mark.parametrize("body", [b"body", LARGE])
def test_order_is_kept_for_each_sender_and_name(body: bytes) -> None:
    """All sinks get the same order key, also for large bodies."""
    harness = CoreHarness()
    peer = harness.peer("one", 1)
    member, sender = harness.member(), harness.caller()
    harness.core.broadcasts.broadcast(sender, "c", body, None)
    harness.core.broadcasts.peer_broadcast(peer, "c", body, 7, None)
    assert sink_of(member).orders == [(sender.sender, "c"), ("one/7", "c")]
    assert sink_of(peer).orders == [(sender.sender, "c")]


def test_slow_endpoint_loses_only_its_own_messages_and_drops_are_counted() -> None:
    harness = CoreHarness()
    slow, quick, sender = harness.member(room=1), harness.member(), harness.caller()
    peer: Peer = harness.peer("one", 1)
    assert isinstance(peer.sink, RecordingSink)
    peer.sink.room = 0
    for endpoint in (slow, quick):
        harness.core.programs.subscribe(endpoint, "t")
    broadcasts = harness.core.broadcasts
    for number in range(3):
        broadcasts.broadcast(sender, "c", b"%d" % number, None)
    broadcasts.publish(sender, "t", (b"one", b"other"), None)
    assert len(sent_to(quick)) == 4
    assert len(sent_to(slow)) == 1
    assert harness.counters.drops == {"broadcast_queue_full": 3 + 2 + 2}
    assert harness.counters.broadcasts == 3
    assert harness.counters.published == 2


def test_fanout_is_counted_at_its_first_relay() -> None:
    harness = CoreHarness()
    peer, member = harness.peer("one", 1), harness.member()
    harness.core.programs.subscribe(member, "t")
    harness.core.broadcasts.peer_broadcast(peer, "c", b"", 1, None)
    harness.core.broadcasts.peer_publish(peer, "t", b"", 1, None)
    assert len(sent_to(member)) == 2
    assert (harness.counters.broadcasts, harness.counters.published) == (0, 0)


def test_subscribers_of_a_draining_peer_still_get_events() -> None:
    harness = CoreHarness()
    peer, sender = harness.peer("one", 1), harness.caller()
    harness.core.directory.subscribe("t", peer)
    harness.core.peers.drain(peer, 0, 0.0)
    harness.core.broadcasts.publish(sender, "t", b"", None)
    assert [message[0] for message in sent_to(peer)] == [PEER_EVENT]
