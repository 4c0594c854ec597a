"""Relays find together, and together again, whatever their cables and clocks do."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from meshes import STEP, Mesh, Relay
from outlets import Recorder
from rooms import CALL, FAILED, REPLY, taken

from arke.wire.messages import Failure, PeerOp
from arke_relay.core.exchange import Exchange
from arke_relay.core.membership import BEAT, CONFIRMATION, PATIENCE, Membership, Neighbour
from arke_relay.core.parties import Program

SOON = 4 * STEP
"""A join, two handshakes, and a heartbeat each way."""


def pair(seed: int = 0) -> tuple[Mesh, Relay, Relay]:
    mesh = Mesh(2, seed)
    one, other = mesh.all
    return mesh, one, other


def ask(relay: Relay, client: Program, number: int, cluster: str, timeout: float = 60.0) -> None:
    relay.exchange.router.request(
        client, number, cluster, b"question", timeout, False, None, relay.now
    )


def answer(relay: Relay, member: Program) -> None:
    for op, call, *_ in taken(member):
        assert op == CALL
        relay.exchange.router.reply(member, call, b"answer", relay.now)


# How a link begins.


def test_two_relays_link_and_know_what_the_other_serves() -> None:
    mesh, one, other = pair()
    one.serve("a")
    other.serve("a")
    other.serve("b")
    mesh.until(mesh.agrees, SOON)
    mesh.run(60)
    assert mesh.agrees()
    assert one.losses == other.losses == []


def test_a_request_crosses() -> None:
    mesh, one, other = pair()
    member = other.serve("a")
    mesh.run(1)
    client = one.exchange.attach("client", Recorder())
    ask(one, client, 1, "a")
    mesh.until(lambda: bool(member.outlet.messages), SOON)  # type: ignore[attr-defined]
    answer(other, member)
    mesh.until(lambda: bool(client.outlet.messages), SOON)  # type: ignore[attr-defined]
    assert taken(client) == [(REPLY, 1, b"answer")]


def test_what_a_request_waited_in_a_cable_is_taken_off_its_time() -> None:
    mesh, one, other = pair()
    member = other.serve("a")
    client = one.exchange.attach("client", Recorder())
    mesh.run(1)
    mesh.cut(0, 1)
    ask(one, client, 1, "a", timeout=1.0)
    ask(one, client, 2, "a", timeout=5.0)
    mesh.run(1.5)
    mesh.heal()
    mesh.run(2 * STEP)
    ((_, _, _, timeout, *_),) = taken(member)
    assert timeout == pytest.approx(3500, abs=2 * STEP * 1000)
    assert other.exchange.counters.drops["expired_on_the_way"] == 1


@pytest.mark.parametrize("moment", [n * STEP for n in range(8)])
def test_what_changes_while_a_link_begins_is_not_missed(moment: float) -> None:
    mesh, one, other = pair()
    early = one.serve("a")
    mesh.run(moment)
    one.serve("b")
    one.exchange.leave(early)
    other.serve("c")
    mesh.run(1)
    assert mesh.agrees(), mesh.describe()


def test_a_session_carries_nothing_before_it_is_heard() -> None:
    """What a peer that is not listening drops must not be what it has to know."""
    mesh, one, other = pair()
    one.serve("a")
    mesh.step()
    mesh.cut(1, 0)
    mesh.run(PATIENCE / 2)
    (link,) = [link for link in mesh.links if link.cable.sender is one]
    assert other.membership.neighbours[one.node].heard_session == link.session
    assert other.exchange.directory.clusters == {}
    assert link._outbox.size == 0
    mesh.heal()
    mesh.until(mesh.agrees, SOON + BEAT)


def test_a_newcomer_is_introduced_to_all_and_all_to_it() -> None:
    mesh = Mesh(3)
    one, other, newcomer = mesh.all
    newcomer.paused = True
    mesh.until(lambda: one.membership.synced == 1 == other.membership.synced, SOON)
    newcomer.paused = False
    mesh.run(1)
    assert newcomer.known == {one.node, other.node}
    assert newcomer.node in one.known & other.known


# How it ends.


def test_silence_one_way_ends_both_ways() -> None:
    mesh, one, other = pair()
    mesh.until(mesh.agrees, SOON)
    mesh.cut(0, 1)
    lost = mesh.until(lambda: bool(other.losses), PATIENCE + 3 * BEAT)
    assert lost > PATIENCE - BEAT
    mesh.until(lambda: bool(one.losses), PATIENCE + 3 * BEAT)
    mesh.run(10)
    assert len(one.losses) == len(other.losses) == 1
    assert one.exchange.peers == other.exchange.peers == {}
    mesh.heal()
    mesh.until(mesh.agrees, SOON)


def test_what_a_silent_peer_had_is_lost_with_it() -> None:
    mesh, one, other = pair()
    member = other.serve("a")
    mesh.run(1)
    client = one.exchange.attach("client", Recorder())
    ask(one, client, 1, "a")
    mesh.run(2 * STEP)
    mesh.cut(1, 0)
    mesh.until(lambda: bool(one.losses), PATIENCE + 3 * BEAT)
    ((op, number, failure, _),) = taken(client)
    assert (op, number, failure) == (FAILED, 1, Failure.MEMBER_LOST)
    assert one.exchange.directory.clusters == {}
    answer(other, member)
    mesh.heal()
    mesh.run(5)
    assert mesh.agrees()
    assert taken(client) == []


def test_a_broken_connection_ends_the_link_at_once_and_it_begins_again() -> None:
    mesh, one, other = pair()
    one.serve("a")
    other.serve("b")
    mesh.run(1)
    mesh.break_link(0, 1)
    assert [reason for _, reason in one.losses] == ["the connection broke"]
    mesh.run(1)
    assert mesh.agrees(), mesh.describe()
    assert len(one.losses) == 1
    assert other.losses == [], "it noticed by the new session alone"


def test_a_peer_that_began_anew_has_lost_what_it_was_asked() -> None:
    """Neither side waits for an answer that the other has forgotten."""
    mesh, one, other = pair()
    members = [one.serve("a"), other.serve("b")]
    mesh.run(1)
    clients = [relay.exchange.attach("client", Recorder()) for relay in (one, other)]
    ask(one, clients[0], 1, "b")
    ask(other, clients[1], 1, "a")
    mesh.run(2 * STEP)
    assert all(taken(member) for member in members)
    mesh.break_link(0, 1)
    mesh.run(1)
    for client in clients:
        assert [message[:3] for message in taken(client)] == [(FAILED, 1, Failure.MEMBER_LOST)]
    for relay in (one, other):
        assert len(relay.exchange.router) == 0


def test_nothing_from_before_a_break_arrives_after_it() -> None:
    """The frames of the first session come in after the second has begun."""
    mesh, one, other = pair()
    member = other.serve("a")
    mesh.run(1)
    client = one.exchange.attach("client", Recorder())
    mesh.cut(0, 1)
    ask(one, client, 1, "a")
    mesh.until(lambda: bool(one.losses and other.losses), 2 * PATIENCE + 6 * BEAT)
    (late,) = [cable for cable in mesh.closed if cable.sender is one]
    frames = list(late.frames)
    late.frames.clear()
    assert frames
    mesh.heal()
    mesh.until(mesh.agrees, SOON)
    for frame in frames:
        other.batches.receive(one.node, frame, other.now)
    assert taken(member) == []
    assert other.exchange.counters.drops["stale_session"] == len(frames)
    mesh.run(5)
    assert mesh.agrees()
    assert len(one.losses) == 1


def test_an_admission_that_ended_is_neither_sent_to_nor_listened_to() -> None:
    mesh, one, other = pair()
    other.serve("a")
    mesh.run(1)
    one.end_admission(other.node)
    assert one.exchange.peers == {}
    assert one.exchange.directory.clusters == {}
    assert one.membership.neighbours == {}
    assert not [link for link in mesh._open_links() if link.cable.sender is one]
    mesh.run(1)
    assert mesh.agrees()


def test_a_member_that_comes_while_the_relay_leaves_is_not_called() -> None:
    mesh, one, other = pair()
    one.serve("a")
    mesh.run(1)
    one.exchange.router.draining = True
    one.exchange.tell_draining()
    one.serve("a")
    one.serve("b")
    mesh.run(1)
    assert other.exchange.directory.clusters == {}


def test_who_links_with_a_leaving_relay_is_told_so() -> None:
    mesh, one, other = pair()
    one.serve("a")
    one.exchange.router.draining = True
    one.exchange.tell_draining()
    mesh.run(1)
    assert other.exchange.directory.clusters == {}
    assert other.exchange.peers[one.node].draining
    client = other.exchange.attach("client", Recorder())
    other.exchange.router.settle(other.now)
    ask(other, client, 1, "a")
    assert [m[:3] for m in taken(client)] == [(FAILED, 1, Failure.NO_SUCH_CLUSTER)]


# Pauses.


@pytest.mark.parametrize("seconds", [1.0, 5.0, 3600.0])
def test_when_all_sleep_nobody_is_lost(seconds: float) -> None:
    """A host that suspends its machines, or a debugger: nobody was silent, nobody was awake."""
    mesh, one, other = pair()
    mesh.run(1)
    one.paused = other.paused = True
    mesh.time += seconds
    mesh.heal()
    mesh.run(5)
    assert mesh.agrees()
    assert one.losses == other.losses == []


def test_a_short_pause_loses_nobody() -> None:
    mesh, one, other = pair()
    mesh.run(1)
    one.paused = True
    mesh.run(PATIENCE - 2 * BEAT)
    mesh.heal()
    mesh.run(5)
    assert one.losses == other.losses == []


def test_who_sleeps_long_is_lost_and_found() -> None:
    mesh, one, other = pair()
    one.serve("a")
    mesh.run(1)
    one.paused = True
    mesh.until(lambda: bool(other.losses), PATIENCE + 3 * BEAT)
    assert other.exchange.directory.clusters == {}
    mesh.run(30)
    mesh.heal()
    mesh.run(PATIENCE + CONFIRMATION)
    assert mesh.agrees(), mesh.describe()


# Whatever happens.


@dataclass(frozen=True)
class Event:
    """Something that befalls relays `one` and `other`, and how long it lasts."""

    what: str
    one: int
    other: int
    seconds: float

    def befall(self, mesh: Mesh, random: Random) -> None:
        one, other = self.one % len(mesh.all), self.other % len(mesh.all)
        relay = mesh.all[one]
        if self.what == "cut":
            mesh.cut(one, other)
        elif self.what == "cut both ways":
            mesh.cut(one, other)
            mesh.cut(other, one)
        elif self.what == "heal":
            mesh.heal()
        elif self.what == "break":
            mesh.break_link(one, other)
        elif self.what == "end":
            relay.end_admission(mesh.all[other].node)
        elif self.what == "pause":
            relay.paused = True
        elif self.what == "trouble":
            mesh.trouble = 0.9
        elif self.what == "serve":
            relay.serve(random.choice("ab"))
        elif self.what == "leave" and relay.exchange.programs:
            program = random.choice(list(relay.exchange.programs.values()))
            relay.exchange.leave(program)
        mesh.run(self.seconds)


WHAT = ["cut", "cut both ways", "heal", "break", "end", "pause", "trouble", "serve", "leave"]
EVENTS = st.lists(
    st.builds(
        Event,
        st.sampled_from(WHAT),
        st.integers(0, 2),
        st.integers(0, 2),
        st.sampled_from([0, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 2.2, 3.1]),
    ).filter(lambda event: event.one != event.other),
    max_size=14,
)

AGREED = 8 * BEAT
"""How soon all is well once nothing is in the way any more: a few redials and handshakes."""


def converges(mesh: Mesh, events: list[Event], seed: int) -> None:
    random = Random(seed)
    for event in events:
        event.befall(mesh, random)
    mesh.heal()
    # What was suffered before is still to be noticed; then it must be over, and stay over.
    mesh.run(AGREED)
    losses = [list(relay.losses) for relay in mesh.all]
    for _ in range(round(2 * (PATIENCE + CONFIRMATION) / STEP)):
        mesh.step()
        assert mesh.agrees(), mesh.describe()
    assert losses == [relay.losses for relay in mesh.all], mesh.describe()


@settings(max_examples=300)
@given(events=EVENTS, seed=st.integers(0, 1000))
@example(  # one relay ends what the other has not confirmed: each then waits for the other
    events=[Event("cut", 0, 1, 0.05), Event("end", 1, 0, 0.05), Event("heal", 0, 1, 0.05)], seed=1
)
@example(  # the directory falls between two admissions
    events=[
        Event("serve", 1, 0, 0.05),
        Event("cut", 1, 0, 0),
        Event("end", 0, 1, 0),
    ],
    seed=1,
)
def test_two_relays_agree_soon_after_all_is_healed(events: list[Event], seed: int) -> None:
    mesh = Mesh(2, seed)
    two = [Event(e.what, e.one % 2, e.other % 2, e.seconds) for e in events]
    converges(mesh, [event for event in two if event.one != event.other], seed)


@settings(max_examples=60)
@given(events=EVENTS, seed=st.integers(0, 1000))
def test_three_relays_agree_soon_after_all_is_healed(events: list[Event], seed: int) -> None:
    converges(Mesh(3, seed), events, seed)


# One membership alone, its links played by the test.


@dataclass(eq=False)
class Link(Recorder):
    """What a membership does with a link."""

    session: int = 0
    said: list[int] = field(default_factory=list)
    beats: int = 0
    closed: bool = False

    def hear(self, session: int) -> None:
        self.said.append(session)

    def beat(self) -> None:
        self.beats += 1

    def close(self) -> None:
        assert not self.closed
        self.closed = True


class Alone:
    """A membership, the links it opened, and the neighbours it lost."""

    def __init__(self) -> None:
        self.exchange = Exchange("me", Random(0).random)
        self.links: list[Link] = []
        self.lost: list[str] = []
        self.membership = Membership(
            self.exchange, self._dial, lambda neighbour, reason: self.lost.append(reason)
        )

    def admit(self, now: float, address: str = "10.9.8.7") -> Neighbour:
        self.membership.admitted("peer", b"key", address, 5, 6, now)
        return self.membership.neighbours["peer"]

    def hear(self, session: int, hearing: int, now: float) -> Any:
        return self.membership.heard("peer", session, now * 1000, hearing, now)

    def _dial(self, neighbour: Neighbour, session: int) -> Link:
        self.links.append(Link(session=session))
        return self.links[-1]


def ops(link: Link) -> list[int]:
    return [message[0] for message in link.messages]


def test_a_session_is_heard_confirmed_and_told() -> None:
    alone = Alone()
    alone.exchange.register(alone.exchange.attach("p", Recorder()), "a", 0.0)
    alone.admit(0.0)
    (link,) = alone.links
    assert alone.hear(9, 0, 0.1) is not None
    assert link.said == [0, 9]
    assert ops(link) == []
    alone.hear(9, link.session, 0.2)
    alone.hear(9, link.session, 0.3)
    assert ops(link) == [PeerOp.JOINED, PeerOp.SYNCED]


def test_who_is_not_heard_by_the_peer_in_time_begins_again() -> None:
    alone = Alone()
    alone.admit(0.0)
    now = 0.0
    while now <= CONFIRMATION:
        assert not alone.lost
        alone.hear(9, 0, now)
        alone.membership.tick(now)
        now += BEAT
    alone.membership.tick(now)
    assert alone.lost == ["it does not hear us"]
    assert alone.links[0].closed
    assert alone.hear(9, 0, now) is None
    assert alone.admit(now).given_up == 9
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
    assert alone.membership.heard("nobody", 1, 0, 0, 0.3) is None


def test_a_direction_that_began_anew_has_its_own_time_to_be_heard() -> None:
    alone = Alone()
    alone.admit(0.0)
    alone.hear(9, alone.links[0].session, 0.1)
    late = 10 * CONFIRMATION
    alone.hear(10, -alone.links[0].session, late)
    alone.membership.tick(late + BEAT)
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
    assert alone.exchange.peers["peer"].outlet is second
    assert alone.lost == []


def test_changes_go_to_links_that_are_heard_and_to_no_other() -> None:
    alone = Alone()
    alone.admit(0.0)
    (first,) = alone.links

    def serve() -> None:
        alone.exchange.register(alone.exchange.attach("p", Recorder()), "a", 0.0)

    serve()
    alone.hear(9, 0, 0.1)
    serve()
    assert ops(first) == []
    alone.hear(9, first.session, 0.1)
    serve()
    assert ops(first) == [PeerOp.JOINED, PeerOp.JOINED, PeerOp.SYNCED, PeerOp.JOINED]
    alone.hear(10, -first.session, 0.2)
    serve()
    assert len(first.messages) == 4
    assert alone.links[1].messages == []
    alone.hear(10, alone.links[1].session, 0.2)
    told = len(alone.links[1].messages)
    alone.membership.end("peer", "for a reason", 0.3)
    serve()
    assert len(alone.links[1].messages) == told
    assert alone.exchange.audience == {}


def test_a_link_that_misses_a_change_begins_anew() -> None:
    alone = Alone()
    alone.admit(0.0)
    (link,) = alone.links
    alone.hear(9, link.session, 0.1)
    link.room = len(link.messages)
    alone.exchange.register(alone.exchange.attach("p", Recorder()), "a", 0.0)
    assert link.overruns == 1


def test_only_the_connection_of_this_session_can_break_it() -> None:
    alone = Alone()
    alone.admit(0.0)
    alone.hear(9, alone.links[0].session, 0.1)
    alone.hear(10, -alone.links[0].session, 0.2)
    alone.membership.broke("peer", alone.links[0].session, "late news", 0.3)
    alone.membership.broke("nobody", alone.links[1].session, "of somebody else", 0.3)
    assert alone.lost == []
    alone.membership.broke("peer", alone.links[1].session, "true", 0.3)
    assert alone.lost == ["true"]


@pytest.mark.parametrize("speak", [True, False])
def test_every_beat_is_a_heartbeat(speak: bool) -> None:
    alone = Alone()
    alone.admit(0.0)
    (link,) = alone.links
    for beat in range(1, 8):
        if speak:
            alone.hear(9, link.session, beat * BEAT)
        alone.membership.tick(beat * BEAT)
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
    assert membership.heard("peer", 9, 5_000, 0, 1.0) is not None
    heard = membership.heard("peer", 9, 5_100, 0, 1.5)
    assert heard is not None
    assert heard[1] == pytest.approx(400)
    heard = membership.heard("peer", 10, 5_200, 0, 2.5)
    assert heard is not None
    assert heard[1] == 0, "another session may take another way"


def test_what_was_given_up_is_remembered_within_bounds() -> None:
    alone = Alone()
    membership = alone.membership
    for number in range(5000):
        node = f"{number}"
        membership.admitted(node, b"", "10.9.8.7", 1, 2, 0.0)
        membership.heard(node, 3, 0, 0, 0.0)
        membership.end(node, "enough", 0.0)
    assert len(membership._given_up) <= 4096
    assert membership._given_up["4999"] == 3
    assert membership.neighbours == {}
    assert alone.exchange.peers == {}


def test_the_states_of_a_neighbour() -> None:
    alone = Alone()
    neighbour = alone.admit(0.0)
    assert neighbour.state == "admitted"
    peer, _ = alone.hear(9, 0, 0.1)
    assert neighbour.state == "synchronising"
    peer.synced = True
    assert neighbour.state == "linked"
    alone.exchange.drain_peer(peer, 0, 0.2)
    assert neighbour.state == "leaving"
