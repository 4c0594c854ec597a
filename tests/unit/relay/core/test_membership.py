"""Relays link, and link again after faults of their cables and clocks."""

from __future__ import annotations

import pytest

from arke.wire.messages import Failure
from arke_relay.core.membership import CONFIRM_TIMEOUT, HEARTBEAT, SILENCE_TIMEOUT
from support.core_harness import FAILED, REPLY, sent_to
from support.recording_sink import RecordingSink
from support.simulated_network import STEP, SimulatedNetwork, SimulatedRelay

SOON = 4 * STEP
"""Seconds for a join, two handshakes, and a heartbeat in each direction."""


def pair(seed: int = 0) -> tuple[SimulatedNetwork, SimulatedRelay, SimulatedRelay]:
    mesh = SimulatedNetwork(2, seed)
    one, other = mesh.all
    return mesh, one, other


# Opening a link.


def test_two_relays_link_and_exchange_members() -> None:
    mesh, one, other = pair()
    one.serve("a")
    other.serve("a")
    other.serve("b")
    mesh.run_until(mesh.converged, SOON)
    mesh.run(60)
    assert mesh.converged()
    assert one.losses == other.losses == []


def test_request_reaches_a_member_at_the_peer() -> None:
    mesh, one, other = pair()
    member = other.serve("a")
    mesh.run(1)
    caller = one.core.programs.attach("caller", RecordingSink())
    one.request(caller, 1, "a")
    mesh.run_until(lambda: bool(member.sink.messages), SOON)  # type: ignore[attr-defined]
    other.reply(member)
    mesh.run_until(lambda: bool(caller.sink.messages), SOON)  # type: ignore[attr-defined]
    assert sent_to(caller) == [(REPLY, 1, b"answer")]


def test_transit_time_is_subtracted_from_the_remaining_time() -> None:
    mesh, one, other = pair()
    member = other.serve("a")
    caller = one.core.programs.attach("caller", RecordingSink())
    mesh.run(1)
    mesh.cut(0, 1)
    one.request(caller, 1, "a", timeout=1.0)
    one.request(caller, 2, "a", timeout=5.0)
    mesh.run(1.5)
    mesh.heal()
    mesh.run(2 * STEP)
    ((_, _, _, timeout, *_),) = sent_to(member)
    assert timeout == pytest.approx(3500, abs=2 * STEP * 1000)
    assert other.core.counters.drops["expired_in_transit"] == 1


@pytest.mark.parametrize("moment", [n * STEP for n in range(8)])
def test_change_during_link_setup_is_announced(moment: float) -> None:
    mesh, one, other = pair()
    early = one.serve("a")
    mesh.run(moment)
    one.serve("b")
    one.core.programs.unregister(early)
    other.serve("c")
    mesh.run(1)
    assert mesh.converged(), mesh.describe()


def test_session_carries_no_directory_before_its_acknowledgement() -> None:
    """A peer drops frames before its acknowledgement, so these must not contain the directory."""
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


def test_new_peer_and_other_peers_learn_of_each_other() -> None:
    mesh = SimulatedNetwork(3)
    one, other, newcomer = mesh.all
    newcomer.paused = True
    mesh.run_until(lambda: one.membership.synced == 1 == other.membership.synced, SOON)
    newcomer.paused = False
    mesh.run(1)
    assert newcomer.known == {one.node, other.node}
    assert newcomer.node in one.known & other.known


# Closing a link.


def test_silence_in_one_direction_ends_both() -> None:
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


def test_members_and_requests_of_a_silent_peer_are_lost_with_it() -> None:
    mesh, one, other = pair()
    member = other.serve("a")
    mesh.run(1)
    caller = one.core.programs.attach("caller", RecordingSink())
    one.request(caller, 1, "a")
    mesh.run(2 * STEP)
    mesh.cut(1, 0)
    mesh.run_until(lambda: bool(one.losses), SILENCE_TIMEOUT + 3 * HEARTBEAT)
    ((op, number, failure, _),) = sent_to(caller)
    assert (op, number, failure) == (FAILED, 1, Failure.MEMBER_LOST)
    assert one.core.directory.clusters == {}
    other.reply(member)
    mesh.heal()
    mesh.run(5)
    assert mesh.converged()
    assert sent_to(caller) == []


def test_broken_connection_ends_the_link_and_the_peer_links_again() -> None:
    mesh, one, other = pair()
    one.serve("a")
    other.serve("b")
    mesh.run(1)
    mesh.break_link(0, 1)
    assert [reason for _, reason in one.losses] == ["the connection broke"]
    mesh.run(1)
    assert mesh.converged(), mesh.describe()
    assert len(one.losses) == 1
    assert other.losses == [], "the new session replaces the link without a loss"


def test_requests_to_a_restarted_session_fail_on_both_sides() -> None:
    """No side waits for a reply that the other side has dropped."""
    mesh, one, other = pair()
    members = [one.serve("a"), other.serve("b")]
    mesh.run(1)
    clients = [relay.core.programs.attach("caller", RecordingSink()) for relay in (one, other)]
    one.request(clients[0], 1, "b")
    other.request(clients[1], 1, "a")
    mesh.run(2 * STEP)
    assert all(sent_to(member) for member in members)
    mesh.break_link(0, 1)
    mesh.run(1)
    for caller in clients:
        assert [message[:3] for message in sent_to(caller)] == [(FAILED, 1, Failure.MEMBER_LOST)]
    for relay in (one, other):
        assert len(relay.core.router) == 0


def test_late_frames_of_an_earlier_session_are_dropped() -> None:
    """Frames of the first session arrive after the start of the second."""
    mesh, one, other = pair()
    member = other.serve("a")
    mesh.run(1)
    caller = one.core.programs.attach("caller", RecordingSink())
    mesh.cut(0, 1)
    one.request(caller, 1, "a")
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


def test_expired_admission_stops_both_directions() -> None:
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


def test_member_that_registers_at_a_draining_relay_gets_no_requests() -> None:
    mesh, one, other = pair()
    one.serve("a")
    mesh.run(1)
    one.core.router.draining = True
    one.core.peers.announce_draining()
    one.serve("a")
    one.serve("b")
    mesh.run(1)
    assert other.core.directory.clusters == {}


def test_new_link_to_a_draining_relay_gets_draining() -> None:
    mesh, one, other = pair()
    one.serve("a")
    one.core.router.draining = True
    one.core.peers.announce_draining()
    mesh.run(1)
    assert other.core.directory.clusters == {}
    assert other.core.peers.by_node[one.node].draining
    caller = other.core.programs.attach("caller", RecordingSink())
    other.core.router.settle(other.now)
    other.request(caller, 1, "a")
    assert [m[:3] for m in sent_to(caller)] == [(FAILED, 1, Failure.NO_SUCH_CLUSTER)]


def test_closing_peer_sends_its_replies_before_close() -> None:
    mesh, near, far = pair()
    member = far.serve("a")
    mesh.run_until(lambda: near.members() == {"a": {far.node: {member.id}}}, 5)
    caller = near.core.programs.attach("caller", RecordingSink())
    near.request(caller, 1, "a")
    mesh.run_until(lambda: len(far.core.router) == 1, 1)
    far.reply(member)
    far.membership.send_close(far.now)
    mesh.run_until(lambda: (far.node, "closed_by_peer") in near.losses, 1)
    assert [message[0] for message in sent_to(caller)] == [REPLY]
    mesh.run_until(lambda: (near.node, "closed_by_peer") in far.losses, 1)


# Pauses.


@pytest.mark.parametrize("seconds", [1.0, 5.0, 3600.0])
def test_simultaneous_pause_of_all_relays_loses_no_peer(seconds: float) -> None:
    """All machines are suspended at the same time, so that no relay was silent for the others."""
    mesh, one, other = pair()
    mesh.run(1)
    one.paused = other.paused = True
    mesh.time += seconds
    mesh.heal()
    mesh.run(5)
    assert mesh.converged()
    assert one.losses == other.losses == []


def test_short_pause_loses_no_peer() -> None:
    mesh, one, other = pair()
    mesh.run(1)
    one.paused = True
    mesh.run(SILENCE_TIMEOUT - 2 * HEARTBEAT)
    mesh.heal()
    mesh.run(5)
    assert one.losses == other.losses == []


def test_relay_paused_for_long_is_lost_and_links_again() -> None:
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
