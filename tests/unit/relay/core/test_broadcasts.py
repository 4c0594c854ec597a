"""One message to many: who gets it, what it looks like there, and what is counted."""

from __future__ import annotations

import pytest

from arke.wire.limits import CHUNK
from arke.wire.messages import Op, PeerOp
from arke_relay.core.endpoints import Endpoint, Peer
from support.core_harness import CoreHarness, sent_to, sink_of
from support.recording_sink import RecordingSink

TOLD, EVENT = Op.DELIVER_BROADCAST.value, Op.DELIVER_EVENT.value
PEER_TOLD, PEER_EVENT = PeerOp.BROADCAST.value, PeerOp.PUBLISH.value

HEADERS = {"h": "v"}
LARGE = bytes(CHUNK + 1)


class Audience:
    """Members and subscribers of one name here and at two peers, and endpoints of another name."""

    def __init__(self) -> None:
        self.room = room = CoreHarness()
        self.sender = room.client()
        self.members = [room.member("c"), room.member("c"), room.member("d")]
        self.peers = [room.peer("one", 1, 2), room.peer("other", 3, cluster="d")]
        core = room.core
        for endpoint in (self.members[0], self.members[2]):
            core.programs.subscribe(endpoint, "t")
        core.directory.subscribe("t", self.peers[0])
        self.everybody: list[Endpoint] = [self.sender, *self.members, *self.peers]

    def got(self) -> dict[Endpoint, list[tuple[object, ...]]]:
        return {endpoint: got for endpoint in self.everybody if (got := sent_to(endpoint))}


@pytest.mark.parametrize("body", [b"", b"body", LARGE])
@pytest.mark.parametrize("headers", [None, HEADERS])
def test_a_broadcast_reaches_every_member_once(body: bytes, headers: dict[str, str] | None) -> None:
    audience = Audience()
    sender = audience.sender
    audience.room.core.broadcasts.broadcast(sender, "c", body, headers)
    here = (TOLD, body, sender.sender, headers)
    assert audience.got() == {
        audience.members[0]: [here],
        audience.members[1]: [here],
        audience.peers[0]: [(PEER_TOLD, "c", body, sender.id, headers)],
    }, "one copy for a peer, however many members it has"


@pytest.mark.parametrize("body", [b"", b"body", LARGE])
@pytest.mark.parametrize("headers", [None, HEADERS])
def test_an_event_reaches_every_subscriber_once(
    body: bytes, headers: dict[str, str] | None
) -> None:
    audience = Audience()
    sender = audience.sender
    audience.room.core.broadcasts.publish(sender, "t", body, headers)
    here = (EVENT, "t", body, sender.sender, headers)
    assert audience.got() == {
        audience.members[0]: [here],
        audience.members[2]: [here],
        audience.peers[0]: [(PEER_EVENT, "t", body, sender.id, headers)],
    }


@pytest.mark.parametrize("body", [b"body", LARGE])
def test_what_a_peer_tells_goes_to_programs_here_and_no_further(body: bytes) -> None:
    audience = Audience()
    broadcasts = audience.room.core.broadcasts
    peer = audience.peers[1]
    broadcasts.peer_broadcast(peer, "c", body, 7, HEADERS)
    broadcasts.peer_publish(peer, "t", body, 7, None)
    told, event = (TOLD, body, "other/7", HEADERS), (EVENT, "t", body, "other/7", None)
    assert audience.got() == {
        audience.members[0]: [told, event],
        audience.members[1]: [told],
        audience.members[2]: [event],
    }


def test_several_in_one_message_stay_in_one_message() -> None:
    audience = Audience()
    bodies = (b"one", b"other")
    audience.room.core.broadcasts.publish(audience.sender, "t", bodies, None)
    got = audience.got()
    assert [message[2] for messages in got.values() for message in messages] == [bodies] * 3
    assert audience.room.counters.published == 2


def test_a_sender_that_listens_hears_itself() -> None:
    room = CoreHarness()
    member = room.member("c")
    room.core.programs.subscribe(member, "t")
    room.core.broadcasts.broadcast(member, "c", b"body", None)
    room.core.broadcasts.publish(member, "t", b"body", None)
    assert [message[0] for message in sent_to(member)] == [TOLD, EVENT]


def test_nobody_is_nobody() -> None:
    audience = Audience()
    broadcasts = audience.room.core.broadcasts
    broadcasts.broadcast(audience.sender, "nobody", b"", None)
    broadcasts.publish(audience.sender, "nobody", b"", None)
    broadcasts.peer_broadcast(audience.peers[0], "nobody", b"", 1, None)
    broadcasts.peer_publish(audience.peers[0], "nobody", b"", 1, None)
    assert audience.got() == {}
    assert not audience.room.counters.drops


def test_who_left_is_told_nothing() -> None:
    audience = Audience()
    core = audience.room.core
    core.programs.unregister(audience.members[0])
    core.programs.unsubscribe(audience.members[0], "t")
    core.programs.detach(audience.members[1], 0.0)
    core.peers.unlink(audience.peers[0], 0.0)
    core.broadcasts.broadcast(audience.sender, "c", b"", None)
    core.broadcasts.publish(audience.sender, "t", b"", None)
    assert list(audience.got()) == [audience.members[2]]


@pytest.mark.parametrize("body", [b"body", LARGE])
def test_the_order_is_that_of_a_sender_and_a_name(body: bytes) -> None:
    """To everybody under the same key, whichever way it came: what is large keeps it too."""
    room = CoreHarness()
    peer = room.peer("one", 1)
    member, sender = room.member(), room.client()
    room.core.broadcasts.broadcast(sender, "c", body, None)
    room.core.broadcasts.peer_broadcast(peer, "c", body, 7, None)
    assert sink_of(member).orders == [(sender.sender, "c"), ("one/7", "c")]
    assert sink_of(peer).orders == [(sender.sender, "c")]


def test_a_slow_party_harms_itself_and_each_drop_is_counted() -> None:
    room = CoreHarness()
    slow, quick, sender = room.member(room=1), room.member(), room.client()
    peer: Peer = room.peer("one", 1)
    assert isinstance(peer.sink, RecordingSink)
    peer.sink.room = 0
    for endpoint in (slow, quick):
        room.core.programs.subscribe(endpoint, "t")
    broadcasts = room.core.broadcasts
    for number in range(3):
        broadcasts.broadcast(sender, "c", b"%d" % number, None)
    broadcasts.publish(sender, "t", (b"one", b"other"), None)
    assert len(sent_to(quick)) == 4
    assert len(sent_to(slow)) == 1
    assert room.counters.drops == {"broadcast_queue_full": 3 + 2 + 2}
    assert room.counters.broadcasts == 3
    assert room.counters.published == 2


def test_what_peers_tell_is_counted_where_it_began() -> None:
    room = CoreHarness()
    peer, member = room.peer("one", 1), room.member()
    room.core.programs.subscribe(member, "t")
    room.core.broadcasts.peer_broadcast(peer, "c", b"", 1, None)
    room.core.broadcasts.peer_publish(peer, "t", b"", 1, None)
    assert len(sent_to(member)) == 2
    assert (room.counters.broadcasts, room.counters.published) == (0, 0)


def test_a_leaving_peers_subscribers_still_hear() -> None:
    room = CoreHarness()
    peer, sender = room.peer("one", 1), room.client()
    room.core.directory.subscribe("t", peer)
    room.core.peers.drain(peer, 0, 0.0)
    room.core.broadcasts.publish(sender, "t", b"", None)
    assert [message[0] for message in sent_to(peer)] == [PEER_EVENT]
