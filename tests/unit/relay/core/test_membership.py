"""Relays find together, and together again, whatever their cables and clocks do."""

from __future__ import annotations

import pytest

from arke.wire.messages import Failure
from arke_relay.core.membership import CONFIRM_TIMEOUT, HEARTBEAT, SILENCE_TIMEOUT
from support.core_harness import FAILED, REPLY, sent_to
from support.recording_sink import RecordingSink
from support.simulated_network import STEP, SimulatedNetwork, SimulatedRelay

SOON = 4 * STEP
"""A join, two handshakes, and a heartbeat each way."""


def pair(seed: int = 0) -> tuple[SimulatedNetwork, SimulatedRelay, SimulatedRelay]:
    mesh = SimulatedNetwork(2, seed)
    one, other = mesh.all
    return mesh, one, other


# How a link begins.


def test_two_relays_link_and_know_what_the_other_serves() -> None:
    mesh, one, other = pair()
    one.serve("a")
    other.serve("a")
    other.serve("b")
    mesh.run_until(mesh.converged, SOON)
    mesh.run(60)
    assert mesh.converged()
    assert one.losses == other.losses == []


def test_a_request_crosses() -> None:
    mesh, one, other = pair()
    member = other.serve("a")
    mesh.run(1)
    client = one.core.programs.attach("client", RecordingSink())
    one.request(client, 1, "a")
    mesh.run_until(lambda: bool(member.sink.messages), SOON)  # type: ignore[attr-defined]
    other.reply(member)
    mesh.run_until(lambda: bool(client.sink.messages), SOON)  # type: ignore[attr-defined]
    assert sent_to(client) == [(REPLY, 1, b"answer")]


def test_what_a_request_waited_in_a_cable_is_taken_off_its_time() -> None:
    mesh, one, other = pair()
    member = other.serve("a")
    client = one.core.programs.attach("client", RecordingSink())
    mesh.run(1)
    mesh.cut(0, 1)
    one.request(client, 1, "a", timeout=1.0)
    one.request(client, 2, "a", timeout=5.0)
    mesh.run(1.5)
    mesh.heal()
    mesh.run(2 * STEP)
    ((_, _, _, timeout, *_),) = sent_to(member)
    assert timeout == pytest.approx(3500, abs=2 * STEP * 1000)
    assert other.core.counters.drops["expired_in_transit"] == 1


@pytest.mark.parametrize("moment", [n * STEP for n in range(8)])
def test_what_changes_while_a_link_begins_is_not_missed(moment: float) -> None:
    mesh, one, other = pair()
    early = one.serve("a")
    mesh.run(moment)
    one.serve("b")
    one.core.programs.unregister(early)
    other.serve("c")
    mesh.run(1)
    assert mesh.converged(), mesh.describe()


def test_a_session_carries_nothing_before_it_is_heard() -> None:
    """What a peer that is not listening drops must not be what it has to know."""
    mesh, one, other = pair()
    one.serve("a")
    mesh.step()
    mesh.cut(1, 0)
    mesh.run(SILENCE_TIMEOUT / 2)
    (link,) = [link for link in mesh.links if link.cable.sender is one]
    assert other.membership.neighbours[one.node].peer_session == link.session
    assert other.core.directory.clusters == {}
    assert link._outbox.size == 0
    mesh.heal()
    mesh.run_until(mesh.converged, SOON + HEARTBEAT)


def test_a_newcomer_is_introduced_to_all_and_all_to_it() -> None:
    mesh = SimulatedNetwork(3)
    one, other, newcomer = mesh.all
    newcomer.paused = True
    mesh.run_until(lambda: one.membership.synced == 1 == other.membership.synced, SOON)
    newcomer.paused = False
    mesh.run(1)
    assert newcomer.known == {one.node, other.node}
    assert newcomer.node in one.known & other.known


# How it ends.


def test_silence_one_way_ends_both_ways() -> None:
    mesh, one, other = pair()
    mesh.run_until(mesh.converged, SOON)
    mesh.cut(0, 1)
    lost = mesh.run_until(lambda: bool(other.losses), SILENCE_TIMEOUT + 3 * HEARTBEAT)
    assert lost > SILENCE_TIMEOUT - HEARTBEAT
    mesh.run_until(lambda: bool(one.losses), SILENCE_TIMEOUT + 3 * HEARTBEAT)
    mesh.run(10)
    assert len(one.losses) == len(other.losses) == 1
    assert one.core.peers.by_node == other.core.peers.by_node == {}
    mesh.heal()
    mesh.run_until(mesh.converged, SOON)


def test_what_a_silent_peer_had_is_lost_with_it() -> None:
    mesh, one, other = pair()
    member = other.serve("a")
    mesh.run(1)
    client = one.core.programs.attach("client", RecordingSink())
    one.request(client, 1, "a")
    mesh.run(2 * STEP)
    mesh.cut(1, 0)
    mesh.run_until(lambda: bool(one.losses), SILENCE_TIMEOUT + 3 * HEARTBEAT)
    ((op, number, failure, _),) = sent_to(client)
    assert (op, number, failure) == (FAILED, 1, Failure.MEMBER_LOST)
    assert one.core.directory.clusters == {}
    other.reply(member)
    mesh.heal()
    mesh.run(5)
    assert mesh.converged()
    assert sent_to(client) == []


def test_a_broken_connection_ends_the_link_at_once_and_it_begins_again() -> None:
    mesh, one, other = pair()
    one.serve("a")
    other.serve("b")
    mesh.run(1)
    mesh.break_link(0, 1)
    assert [reason for _, reason in one.losses] == ["the connection broke"]
    mesh.run(1)
    assert mesh.converged(), mesh.describe()
    assert len(one.losses) == 1
    assert other.losses == [], "it noticed by the new session alone"


def test_a_peer_that_began_anew_has_lost_what_it_was_asked() -> None:
    """Neither side waits for an answer that the other has forgotten."""
    mesh, one, other = pair()
    members = [one.serve("a"), other.serve("b")]
    mesh.run(1)
    clients = [relay.core.programs.attach("client", RecordingSink()) for relay in (one, other)]
    one.request(clients[0], 1, "b")
    other.request(clients[1], 1, "a")
    mesh.run(2 * STEP)
    assert all(sent_to(member) for member in members)
    mesh.break_link(0, 1)
    mesh.run(1)
    for client in clients:
        assert [message[:3] for message in sent_to(client)] == [(FAILED, 1, Failure.MEMBER_LOST)]
    for relay in (one, other):
        assert len(relay.core.router) == 0


def test_nothing_from_before_a_break_arrives_after_it() -> None:
    """The frames of the first session come in after the second has begun."""
    mesh, one, other = pair()
    member = other.serve("a")
    mesh.run(1)
    client = one.core.programs.attach("client", RecordingSink())
    mesh.cut(0, 1)
    one.request(client, 1, "a")
    mesh.run_until(lambda: bool(one.losses and other.losses), 2 * SILENCE_TIMEOUT + 6 * HEARTBEAT)
    (late,) = [cable for cable in mesh.closed if cable.sender is one]
    frames = list(late.frames)
    late.frames.clear()
    assert frames
    mesh.heal()
    mesh.run_until(mesh.converged, SOON)
    for frame in frames:
        other.batches.receive(one.node, frame, other.now)
    assert sent_to(member) == []
    assert other.core.counters.drops["stale_session"] == len(frames)
    mesh.run(5)
    assert mesh.converged()
    assert len(one.losses) == 1


def test_an_admission_that_ended_is_neither_sent_to_nor_listened_to() -> None:
    mesh, one, other = pair()
    other.serve("a")
    mesh.run(1)
    one.end_admission(other.node)
    assert one.core.peers.by_node == {}
    assert one.core.directory.clusters == {}
    assert one.membership.neighbours == {}
    assert not [link for link in mesh._open_links() if link.cable.sender is one]
    mesh.run(1)
    assert mesh.converged()


def test_a_member_that_comes_while_the_relay_leaves_is_not_called() -> None:
    mesh, one, other = pair()
    one.serve("a")
    mesh.run(1)
    one.core.router.draining = True
    one.core.peers.announce_draining()
    one.serve("a")
    one.serve("b")
    mesh.run(1)
    assert other.core.directory.clusters == {}


def test_who_links_with_a_leaving_relay_is_told_so() -> None:
    mesh, one, other = pair()
    one.serve("a")
    one.core.router.draining = True
    one.core.peers.announce_draining()
    mesh.run(1)
    assert other.core.directory.clusters == {}
    assert other.core.peers.by_node[one.node].draining
    client = other.core.programs.attach("client", RecordingSink())
    other.core.router.settle(other.now)
    other.request(client, 1, "a")
    assert [m[:3] for m in sent_to(client)] == [(FAILED, 1, Failure.NO_SUCH_CLUSTER)]


def test_a_peer_that_takes_its_leave_brings_its_answers_first() -> None:
    mesh, near, far = pair()
    member = far.serve("a")
    mesh.run_until(lambda: near.members() == {"a": {far.node: {member.id}}}, 5)
    client = near.core.programs.attach("client", RecordingSink())
    near.request(client, 1, "a")
    mesh.run_until(lambda: len(far.core.router) == 1, 1)
    far.reply(member)
    far.membership.send_close(far.now)
    mesh.run_until(lambda: (far.node, "closed_by_peer") in near.losses, 1)
    assert [message[0] for message in sent_to(client)] == [REPLY]
    mesh.run_until(lambda: (near.node, "closed_by_peer") in far.losses, 1)


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
    assert mesh.converged()
    assert one.losses == other.losses == []


def test_a_short_pause_loses_nobody() -> None:
    mesh, one, other = pair()
    mesh.run(1)
    one.paused = True
    mesh.run(SILENCE_TIMEOUT - 2 * HEARTBEAT)
    mesh.heal()
    mesh.run(5)
    assert one.losses == other.losses == []


def test_who_sleeps_long_is_lost_and_found() -> None:
    mesh, one, other = pair()
    one.serve("a")
    mesh.run(1)
    one.paused = True
    mesh.run_until(lambda: bool(other.losses), SILENCE_TIMEOUT + 3 * HEARTBEAT)
    assert other.core.directory.clusters == {}
    mesh.run(30)
    mesh.heal()
    mesh.run(SILENCE_TIMEOUT + CONFIRM_TIMEOUT)
    assert mesh.converged(), mesh.describe()
