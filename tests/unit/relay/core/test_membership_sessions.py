"""One membership without a network: the test plays its links and its peer."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from arke.wire.limits import MAX_MESSAGE
from arke.wire.messages import PeerOp
from arke_relay.core.membership import CONFIRM_TIMEOUT, HEARTBEAT, CannotDial, Membership, Neighbour
from arke_relay.core.message_core import MessageCore
from support.recording_sink import RecordingSink


@dataclass(eq=False)
class Link(RecordingSink):
    """A link that records what the membership does with it."""

    session: int = 0
    acknowledged: list[int] = field(default_factory=list)
    heartbeats: int = 0
    closed: bool = False

    def acknowledge(self, session: int) -> None:
        self.acknowledged.append(session)

    def heartbeat(self) -> None:
        self.heartbeats += 1

    def close(self, linger: float = 0.0) -> None:
        assert not self.closed
        self.closed = True


class MembershipHarness:
    """A membership, the links it opened, and the neighbours it lost."""

    def __init__(self) -> None:
        self.core = MessageCore("me", Random(0).random)
        self.links: list[Link] = []
        self.lost: list[str] = []
        self.broken = False
        self.membership = Membership(
            self.core.peers, self._dial, lambda neighbour, reason, detail: self.lost.append(reason)
        )

    def admit(self, now: float, address: str = "10.9.8.7") -> Neighbour:
        self.membership.admitted("peer", b"key", address, 5, 6, MAX_MESSAGE, now)
        return self.membership.neighbours["peer"]

    def receive(self, session: int, acknowledged: int, now: float) -> Any:
        return self.membership.batch_received("peer", session, now * 1000, acknowledged, now)

    def _dial(self, neighbour: Neighbour, session: int) -> Link:
        if self.broken:
            raise CannotDial("no descriptors")
        self.links.append(Link(session=session))
        return self.links[-1]


def ops(link: Link) -> list[int]:
    return [message[0] for message in link.messages]


def test_directory_is_sent_after_the_peer_acknowledges_the_session() -> None:
    harness = MembershipHarness()
    harness.core.programs.register(harness.core.programs.attach("p", RecordingSink()), "a", {}, 0.0)
    harness.admit(0.0)
    (link,) = harness.links
    assert harness.receive(9, 0, 0.1) is not None
    assert link.acknowledged == [0, 9]
    assert ops(link) == []
    harness.receive(9, link.session, 0.2)
    harness.receive(9, link.session, 0.3)
    assert ops(link) == [PeerOp.MEMBER_JOINED, PeerOp.SYNCED]


def test_link_without_acknowledgement_ends_and_its_session_is_rejected() -> None:
    harness = MembershipHarness()
    harness.admit(0.0)
    now = 0.0
    while now <= CONFIRM_TIMEOUT:
        assert not harness.lost
        harness.receive(9, 0, now)
        harness.membership.tick(now)
        now += HEARTBEAT
    harness.membership.tick(now)
    assert harness.lost == ["not_acknowledged"]
    assert harness.links[0].closed
    assert harness.receive(9, 0, now) is None
    assert harness.admit(now).rejected_session == 9
    assert harness.links[1].acknowledged == [-9], (
        "the peer learns at once that its session is rejected"
    )
    assert harness.receive(9, harness.links[1].session, now) is None
    assert harness.receive(10, harness.links[1].session, now) is not None


def test_batch_of_an_earlier_session_is_dropped() -> None:
    harness = MembershipHarness()
    harness.admit(0.0)
    peer, _ = harness.receive(9, 0, 0.1)
    newer, _ = harness.receive(11, 0, 0.2)
    assert newer is not peer
    assert harness.receive(9, 0, 0.3) is None
    assert harness.receive(10, 0, 0.3) is None
    assert harness.receive(11, 0, 0.3)[0] is newer
    assert harness.membership.batch_received("unknown", 1, 0, 0, 0.3) is None


def test_reopened_session_gets_its_own_acknowledgement_timeout() -> None:
    harness = MembershipHarness()
    harness.admit(0.0)
    harness.receive(9, harness.links[0].session, 0.1)
    late = 10 * CONFIRM_TIMEOUT
    harness.receive(10, -harness.links[0].session, late)
    harness.membership.tick(late + HEARTBEAT)
    assert harness.lost == []


def test_session_rejected_by_the_peer_is_replaced() -> None:
    harness = MembershipHarness()
    harness.admit(0.0)
    harness.receive(9, harness.links[0].session, 0.1)
    harness.receive(10, -harness.links[0].session, 0.2)
    first, second = harness.links
    assert first.closed
    assert second.session > first.session
    assert second.acknowledged == [10]
    harness.receive(10, -first.session, 0.3)
    assert len(harness.links) == 2, "the peer has not received the new session yet"
    assert ops(second) == []
    harness.receive(10, second.session, 0.4)
    assert ops(second) == [PeerOp.SYNCED]
    assert harness.core.peers.by_node["peer"].sink is second
    assert harness.lost == []


def test_changes_are_sent_only_to_acknowledged_links() -> None:
    harness = MembershipHarness()
    harness.admit(0.0)
    (first,) = harness.links

    def serve() -> None:
        harness.core.programs.register(
            harness.core.programs.attach("p", RecordingSink()), "a", {}, 0.0
        )

    serve()
    harness.receive(9, 0, 0.1)
    serve()
    assert ops(first) == []
    harness.receive(9, first.session, 0.1)
    serve()
    assert ops(first) == [
        PeerOp.MEMBER_JOINED,
        PeerOp.MEMBER_JOINED,
        PeerOp.SYNCED,
        PeerOp.MEMBER_JOINED,
    ]
    harness.receive(10, -first.session, 0.2)
    serve()
    assert len(first.messages) == 4
    assert harness.links[1].messages == []
    harness.receive(10, harness.links[1].session, 0.2)
    sent = len(harness.links[1].messages)
    harness.membership.end("peer", "reason", 0.3)
    serve()
    assert len(harness.links[1].messages) == sent
    assert harness.core.peers._announcements.links == {}


def test_link_without_room_for_a_change_is_overrun() -> None:
    harness = MembershipHarness()
    harness.admit(0.0)
    (link,) = harness.links
    harness.receive(9, link.session, 0.1)
    link.room = len(link.messages)
    harness.core.programs.register(harness.core.programs.attach("p", RecordingSink()), "a", {}, 0.0)
    assert link.overruns == 1


def test_link_without_room_for_the_directory_is_overrun() -> None:
    harness = MembershipHarness()
    harness.core.programs.register(harness.core.programs.attach("p", RecordingSink()), "a", {}, 0.0)
    harness.admit(0.0)
    (link,) = harness.links
    link.room = len(link.messages) + 1  # SYNCED finds none
    harness.receive(9, link.session, 0.1)
    assert link.overruns == 1


def test_broken_connection_of_an_earlier_session_is_ignored() -> None:
    harness = MembershipHarness()
    harness.admit(0.0)
    harness.receive(9, harness.links[0].session, 0.1)
    harness.receive(10, -harness.links[0].session, 0.2)
    harness.membership.link_broken("peer", harness.links[0].session, "late", 0.3)
    harness.membership.link_broken("unknown", harness.links[1].session, "other", 0.3)
    assert harness.lost == []
    harness.membership.link_broken("peer", harness.links[1].session, "true", 0.3)
    assert harness.lost == ["true"]


@pytest.mark.parametrize("speak", [True, False])
def test_every_tick_sends_a_heartbeat(speak: bool) -> None:
    harness = MembershipHarness()
    harness.admit(0.0)
    (link,) = harness.links
    for beat in range(1, 8):
        if speak:
            harness.receive(9, link.session, beat * HEARTBEAT)
        harness.membership.tick(beat * HEARTBEAT)
        assert link.heartbeats == beat


def test_second_join_keeps_the_link_and_updates_the_address() -> None:
    harness = MembershipHarness()
    neighbour = harness.admit(0.0)
    harness.receive(9, harness.links[0].session, 0.1)
    assert harness.admit(0.2, "10.9.8.6") is neighbour
    assert len(harness.links) == 1
    assert neighbour.address == "10.9.8.6"


def test_transit_delay_of_a_batch_is_returned() -> None:
    harness = MembershipHarness()
    harness.admit(0.0)
    membership = harness.membership
    assert membership.batch_received("peer", 9, 5_000, 0, 1.0) is not None
    received = membership.batch_received("peer", 9, 5_100, 0, 1.5)
    assert received is not None
    assert received[1] == pytest.approx(400)
    received = membership.batch_received("peer", 10, 5_200, 0, 2.5)
    assert received is not None
    assert received[1] == 0, "each session measures its own transit time"


def test_table_of_rejected_sessions_is_bounded() -> None:
    harness = MembershipHarness()
    membership = harness.membership
    for number in range(5000):
        node = f"{number}"
        membership.admitted(node, b"", "10.9.8.7", 1, 2, MAX_MESSAGE, 0.0)
        membership.batch_received(node, 3, 0, 0, 0.0)
        membership.end(node, "enough", 0.0)
    assert len(membership._rejected) <= 4096
    assert membership._rejected["4999"] == 3
    assert membership.neighbours == {}
    assert harness.core.peers.by_node == {}


def test_states_of_a_neighbour() -> None:
    harness = MembershipHarness()
    neighbour = harness.admit(0.0)
    assert neighbour.state == "admitted"
    peer, _ = harness.receive(9, 0, 0.1)
    assert neighbour.state == "synchronising"
    peer.synced = True
    assert neighbour.state == "linked"
    harness.core.peers.drain(peer, 0, 0.2)
    assert neighbour.state == "draining"


def test_link_that_cannot_be_opened_ends_only_that_peer() -> None:
    harness = MembershipHarness()
    harness.admit(0.0)
    assert harness.receive(9, harness.links[0].session, 0.1) is not None
    harness.broken = True
    assert harness.receive(9, -harness.links[0].session, 0.2) is None, (
        "the peer rejected the session"
    )
    assert harness.lost == ["cannot_dial"]
    assert harness.membership.neighbours == {}
    assert harness.core.peers.by_node == {}
    harness.membership.admitted("other", b"", "10.9.8.7", 1, 2, MAX_MESSAGE, 0.3)
    assert len(harness.lost) == 2
    harness.broken = False
    harness.admit(0.4)
    assert harness.receive(10, harness.links[-1].session, 0.5) is not None


def test_close_is_answered_with_close_and_ends_the_link() -> None:
    harness = MembershipHarness()
    harness.admit(0.0)
    (link,) = harness.links
    harness.receive(9, link.session, 0.1)
    link.take()
    harness.membership.peer_closed("peer", 0.2)
    assert ops(link) == [PeerOp.CLOSE]
    assert link.closed
    assert harness.lost == ["closed_by_peer"]
    harness.membership.peer_closed("peer", 0.3)
    assert harness.lost == ["closed_by_peer"]


def test_stopping_relay_sends_close_only_to_acknowledged_links() -> None:
    harness = MembershipHarness()
    harness.admit(0.0)
    harness.receive(9, 0, 0.1)
    harness.membership.send_close(0.2)
    assert harness.lost == ["relay_stopping"]
    assert ops(harness.links[0]) == []
    harness.admit(0.3)
    harness.receive(10, harness.links[1].session, 0.4)
    harness.links[1].take()
    harness.membership.send_close(0.5)
    assert ops(harness.links[1]) == [PeerOp.CLOSE]
    assert not harness.links[1].closed


@pytest.mark.parametrize(("silent", "replaced"), [(3 * HEARTBEAT, True), (HEARTBEAT, False)])
def test_restarted_relay_replaces_a_silent_one_at_its_address(
    silent: float, replaced: bool
) -> None:
    harness = MembershipHarness()
    harness.admit(0.0)
    harness.receive(9, harness.links[0].session, 0.1)
    other = harness.core.peers.by_node["peer"]
    harness.membership.admitted("restarted", b"", other.address, 5, 6, MAX_MESSAGE, 0.1 + silent)
    assert harness.lost == (["replaced"] if replaced else [])
    assert (harness.receive(9, 0, 0.2 + silent) is None) == replaced


def test_relay_at_another_address_replaces_no_other() -> None:
    harness = MembershipHarness()
    harness.admit(0.0)
    harness.receive(9, harness.links[0].session, 0.1)
    harness.membership.admitted("other", b"", "10.9.8.7", 7, 8, MAX_MESSAGE, 1.5)
    harness.membership.admitted("third", b"", "10.9.8.8", 5, 6, MAX_MESSAGE, 1.5)
    assert harness.lost == []
