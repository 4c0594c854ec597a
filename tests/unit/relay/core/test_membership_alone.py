"""One membership alone, its links played by the test."""

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
    """What a membership does with a link."""

    session: int = 0
    said: list[int] = field(default_factory=list)
    beats: int = 0
    closed: bool = False

    def acknowledge(self, session: int) -> None:
        self.said.append(session)

    def heartbeat(self) -> None:
        self.beats += 1

    def close(self, linger: float = 0.0) -> None:
        assert not self.closed
        self.closed = True


class Alone:
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

    def hear(self, session: int, acknowledged: int, now: float) -> Any:
        return self.membership.batch_received("peer", session, now * 1000, acknowledged, now)

    def _dial(self, neighbour: Neighbour, session: int) -> Link:
        if self.broken:
            raise CannotDial("no descriptors")
        self.links.append(Link(session=session))
        return self.links[-1]


def ops(link: Link) -> list[int]:
    return [message[0] for message in link.messages]


def test_a_session_is_heard_confirmed_and_told() -> None:
    alone = Alone()
    alone.core.programs.register(alone.core.programs.attach("p", RecordingSink()), "a", {}, 0.0)
    alone.admit(0.0)
    (link,) = alone.links
    assert alone.hear(9, 0, 0.1) is not None
    assert link.said == [0, 9]
    assert ops(link) == []
    alone.hear(9, link.session, 0.2)
    alone.hear(9, link.session, 0.3)
    assert ops(link) == [PeerOp.MEMBER_JOINED, PeerOp.SYNCED]


def test_who_is_not_heard_by_the_peer_in_time_begins_again() -> None:
    alone = Alone()
    alone.admit(0.0)
    now = 0.0
    while now <= CONFIRM_TIMEOUT:
        assert not alone.lost
        alone.hear(9, 0, now)
        alone.membership.tick(now)
        now += HEARTBEAT
    alone.membership.tick(now)
    assert alone.lost == ["not_acknowledged"]
    assert alone.links[0].closed
    assert alone.hear(9, 0, now) is None
    assert alone.admit(now).rejected_session == 9
    assert alone.links[1].said == [-9], "the peer learns at once that this one is given up"
    assert alone.hear(9, alone.links[1].session, now) is None
    assert alone.hear(10, alone.links[1].session, now) is not None


def test_a_batch_of_an_earlier_session_is_dropped() -> None:
    alone = Alone()
    alone.admit(0.0)
    peer, _ = alone.hear(9, 0, 0.1)
    newer, _ = alone.hear(11, 0, 0.2)
    assert newer is not peer
    assert alone.hear(9, 0, 0.3) is None
    assert alone.hear(10, 0, 0.3) is None
    assert alone.hear(11, 0, 0.3)[0] is newer
    assert alone.membership.batch_received("nobody", 1, 0, 0, 0.3) is None


def test_a_direction_that_began_anew_has_its_own_time_to_be_heard() -> None:
    alone = Alone()
    alone.admit(0.0)
    alone.hear(9, alone.links[0].session, 0.1)
    late = 10 * CONFIRM_TIMEOUT
    alone.hear(10, -alone.links[0].session, late)
    alone.membership.tick(late + HEARTBEAT)
    assert alone.lost == []


def test_a_session_that_the_peer_gave_up_is_replaced() -> None:
    alone = Alone()
    alone.admit(0.0)
    alone.hear(9, alone.links[0].session, 0.1)
    alone.hear(10, -alone.links[0].session, 0.2)
    first, second = alone.links
    assert first.closed
    assert second.session > first.session
    assert second.said == [10]
    alone.hear(10, -first.session, 0.3)
    assert len(alone.links) == 2, "it has not heard of the new one yet"
    assert ops(second) == []
    alone.hear(10, second.session, 0.4)
    assert ops(second) == [PeerOp.SYNCED]
    assert alone.core.peers.by_node["peer"].sink is second
    assert alone.lost == []


def test_changes_go_to_links_that_are_heard_and_to_no_other() -> None:
    alone = Alone()
    alone.admit(0.0)
    (first,) = alone.links

    def serve() -> None:
        alone.core.programs.register(alone.core.programs.attach("p", RecordingSink()), "a", {}, 0.0)

    serve()
    alone.hear(9, 0, 0.1)
    serve()
    assert ops(first) == []
    alone.hear(9, first.session, 0.1)
    serve()
    assert ops(first) == [
        PeerOp.MEMBER_JOINED,
        PeerOp.MEMBER_JOINED,
        PeerOp.SYNCED,
        PeerOp.MEMBER_JOINED,
    ]
    alone.hear(10, -first.session, 0.2)
    serve()
    assert len(first.messages) == 4
    assert alone.links[1].messages == []
    alone.hear(10, alone.links[1].session, 0.2)
    told = len(alone.links[1].messages)
    alone.membership.end("peer", "for a reason", 0.3)
    serve()
    assert len(alone.links[1].messages) == told
    assert alone.core.peers._announcements.links == {}


def test_a_link_that_misses_a_change_begins_anew() -> None:
    alone = Alone()
    alone.admit(0.0)
    (link,) = alone.links
    alone.hear(9, link.session, 0.1)
    link.room = len(link.messages)
    alone.core.programs.register(alone.core.programs.attach("p", RecordingSink()), "a", {}, 0.0)
    assert link.overruns == 1


def test_a_link_that_has_no_room_for_the_directory_begins_anew() -> None:
    alone = Alone()
    alone.core.programs.register(alone.core.programs.attach("p", RecordingSink()), "a", {}, 0.0)
    alone.admit(0.0)
    (link,) = alone.links
    link.room = len(link.messages) + 1  # SYNCED finds none
    alone.hear(9, link.session, 0.1)
    assert link.overruns == 1


def test_only_the_connection_of_this_session_can_break_it() -> None:
    alone = Alone()
    alone.admit(0.0)
    alone.hear(9, alone.links[0].session, 0.1)
    alone.hear(10, -alone.links[0].session, 0.2)
    alone.membership.link_broken("peer", alone.links[0].session, "late news", 0.3)
    alone.membership.link_broken("nobody", alone.links[1].session, "of somebody else", 0.3)
    assert alone.lost == []
    alone.membership.link_broken("peer", alone.links[1].session, "true", 0.3)
    assert alone.lost == ["true"]


@pytest.mark.parametrize("speak", [True, False])
def test_every_beat_is_a_heartbeat(speak: bool) -> None:
    alone = Alone()
    alone.admit(0.0)
    (link,) = alone.links
    for beat in range(1, 8):
        if speak:
            alone.hear(9, link.session, beat * HEARTBEAT)
        alone.membership.tick(beat * HEARTBEAT)
        assert link.beats == beat


def test_a_second_join_keeps_the_link_and_notes_where_the_node_is_now() -> None:
    alone = Alone()
    neighbour = alone.admit(0.0)
    alone.hear(9, alone.links[0].session, 0.1)
    assert alone.admit(0.2, "10.9.8.6") is neighbour
    assert len(alone.links) == 1
    assert neighbour.address == "10.9.8.6"


def test_what_a_batch_waited_is_told_with_it() -> None:
    alone = Alone()
    alone.admit(0.0)
    membership = alone.membership
    assert membership.batch_received("peer", 9, 5_000, 0, 1.0) is not None
    heard = membership.batch_received("peer", 9, 5_100, 0, 1.5)
    assert heard is not None
    assert heard[1] == pytest.approx(400)
    heard = membership.batch_received("peer", 10, 5_200, 0, 2.5)
    assert heard is not None
    assert heard[1] == 0, "another session may take another way"


def test_what_was_given_up_is_remembered_within_bounds() -> None:
    alone = Alone()
    membership = alone.membership
    for number in range(5000):
        node = f"{number}"
        membership.admitted(node, b"", "10.9.8.7", 1, 2, MAX_MESSAGE, 0.0)
        membership.batch_received(node, 3, 0, 0, 0.0)
        membership.end(node, "enough", 0.0)
    assert len(membership._rejected) <= 4096
    assert membership._rejected["4999"] == 3
    assert membership.neighbours == {}
    assert alone.core.peers.by_node == {}


def test_the_states_of_a_neighbour() -> None:
    alone = Alone()
    neighbour = alone.admit(0.0)
    assert neighbour.state == "admitted"
    peer, _ = alone.hear(9, 0, 0.1)
    assert neighbour.state == "synchronising"
    peer.synced = True
    assert neighbour.state == "linked"
    alone.core.peers.drain(peer, 0, 0.2)
    assert neighbour.state == "draining"


def test_a_link_that_cannot_be_made_ends_the_peer_and_not_the_relay() -> None:
    alone = Alone()
    alone.admit(0.0)
    assert alone.hear(9, alone.links[0].session, 0.1) is not None
    alone.broken = True
    assert alone.hear(9, -alone.links[0].session, 0.2) is None, "it asks for another link"
    assert alone.lost == ["cannot_dial"]
    assert alone.membership.neighbours == {}
    assert alone.core.peers.by_node == {}
    alone.membership.admitted("other", b"", "10.9.8.7", 1, 2, MAX_MESSAGE, 0.3)
    assert len(alone.lost) == 2
    alone.broken = False
    alone.admit(0.4)
    assert alone.hear(10, alone.links[-1].session, 0.5) is not None


def test_a_farewell_is_answered_with_one_and_ends_the_link() -> None:
    alone = Alone()
    alone.admit(0.0)
    (link,) = alone.links
    alone.hear(9, link.session, 0.1)
    link.take()
    alone.membership.peer_closed("peer", 0.2)
    assert ops(link) == [PeerOp.CLOSE]
    assert link.closed
    assert alone.lost == ["closed_by_peer"]
    alone.membership.peer_closed("peer", 0.3)
    assert alone.lost == ["closed_by_peer"]


def test_who_leaves_says_farewell_to_those_who_hear_it_and_waits_for_no_other() -> None:
    alone = Alone()
    alone.admit(0.0)
    alone.hear(9, 0, 0.1)
    alone.membership.send_close(0.2)
    assert alone.lost == ["relay_stopping"]
    assert ops(alone.links[0]) == []
    alone.admit(0.3)
    alone.hear(10, alone.links[1].session, 0.4)
    alone.links[1].take()
    alone.membership.send_close(0.5)
    assert ops(alone.links[1]) == [PeerOp.CLOSE]
    assert not alone.links[1].closed


@pytest.mark.parametrize(("silent", "gone"), [(3 * HEARTBEAT, True), (HEARTBEAT, False)])
def test_a_relay_started_anew_takes_the_place_of_a_silent_one(silent: float, gone: bool) -> None:
    alone = Alone()
    alone.admit(0.0)
    alone.hear(9, alone.links[0].session, 0.1)
    other = alone.core.peers.by_node["peer"]
    alone.membership.admitted("anew", b"", other.address, 5, 6, MAX_MESSAGE, 0.1 + silent)
    assert alone.lost == (["replaced"] if gone else [])
    assert (alone.hear(9, 0, 0.2 + silent) is None) == gone


def test_a_relay_elsewhere_takes_nobodys_place() -> None:
    alone = Alone()
    alone.admit(0.0)
    alone.hear(9, alone.links[0].session, 0.1)
    alone.membership.admitted("other", b"", "10.9.8.7", 7, 8, MAX_MESSAGE, 1.5)
    alone.membership.admitted("third", b"", "10.9.8.8", 5, 6, MAX_MESSAGE, 1.5)
    assert alone.lost == []
