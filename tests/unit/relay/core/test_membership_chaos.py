"""After random faults relays converge, and every request has ended exactly once."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from arke_relay.core.membership import CONFIRM_TIMEOUT, HEARTBEAT, SILENCE_TIMEOUT
from support.core_harness import sent_to
from support.recording_sink import RecordingSink
from support.simulated_network import STEP, SimulatedNetwork


@dataclass(frozen=True)
class Event:
    """A fault or an action of the relays `one` and `other`, and the seconds after it."""

    kind: str
    one: int
    other: int
    seconds: float

    def befall(self, mesh: SimulatedNetwork, traffic: Traffic, random: Random) -> None:
        one, other = self.one % len(mesh.all), self.other % len(mesh.all)
        relay = mesh.all[one]
        if self.kind == "cut":
            mesh.cut(one, other)
        elif self.kind == "heal":
            mesh.heal()
        elif self.kind == "break":
            mesh.break_link(one, other)
        elif self.kind == "end":
            relay.end_admission(mesh.all[other].node)
        elif self.kind == "pause":
            relay.paused = True
        elif self.kind == "fail":
            mesh.failure_rate = 0.9
        elif self.kind == "request":
            traffic.request(one, random.choice("ab"), idempotent=random.random() < 0.5)
        elif self.kind == "serve":
            relay.serve(random.choice("ab"))
        elif self.kind == "leave" and relay.core.programs.by_number:
            program = random.choice(list(relay.core.programs.by_number.values()))
            relay.core.programs.unregister(program)
        mesh.run(self.seconds)
        traffic.reply()


class Traffic:
    """One caller at each relay, and members that reply at once."""

    def __init__(self, mesh: SimulatedNetwork) -> None:
        self.mesh = mesh
        self.request_count = 0
        self.clients = [relay.core.programs.attach("caller", RecordingSink()) for relay in mesh.all]

    def request(self, one: int, cluster: str, *, idempotent: bool) -> None:
        self.request_count += 1
        self.mesh.all[one].request(
            self.clients[one], self.request_count, cluster, timeout=5.0, idempotent=idempotent
        )

    def reply(self) -> None:
        for relay in self.mesh.all:
            for member in list(relay.core.programs.by_number.values()):
                if not relay.paused and member not in self.clients:
                    relay.reply(member)

    def all_ended_once(self) -> None:
        ended = [message[1] for caller in self.clients for message in sent_to(caller)]
        assert sorted(ended) == list(range(1, self.request_count + 1))
        for relay in self.mesh.all:
            assert len(relay.core.router) == 0
            for peer in relay.core.peers.by_node.values():
                assert (peer.requests, peer.held_bytes) == ({}, 0)


KINDS = ["cut", "heal", "break", "end", "pause", "fail", "serve", "leave", "request"]
EVENTS = st.lists(
    st.builds(
        Event,
        st.sampled_from(KINDS),
        st.integers(0, 2),
        st.integers(0, 2),
        st.sampled_from([0, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 2.2, 3.1]),
    ).filter(lambda event: event.one != event.other),
    max_size=14,
)

AGREED = 8 * HEARTBEAT
"""Seconds for convergence after the last fault: a few redials and handshakes."""


def converges(mesh: SimulatedNetwork, events: list[Event], seed: int) -> None:
    random = Random(seed)
    traffic = Traffic(mesh)
    for event in events:
        event.befall(mesh, traffic, random)
    mesh.heal()
    # Relays may still notice earlier faults; after that they must converge and stay so.
    mesh.run(AGREED)
    losses = [list(relay.losses) for relay in mesh.all]
    for _ in range(round(2 * (SILENCE_TIMEOUT + CONFIRM_TIMEOUT) / STEP)):
        mesh.step()
        assert mesh.converged(), mesh.describe()
    assert losses == [relay.losses for relay in mesh.all], mesh.describe()
    traffic.all_ended_once()


@settings(max_examples=300)
@given(events=EVENTS, seed=st.integers(0, 1000))
@example(  # one relay ends a link that the other has not acknowledged: each waits for the other
    events=[Event("cut", 0, 1, 0.05), Event("end", 1, 0, 0.05), Event("heal", 0, 1, 0.05)], seed=1
)
@example(  # the directory is sent between two admissions
    events=[
        Event("serve", 1, 0, 0.05),
        Event("cut", 1, 0, 0),
        Event("end", 0, 1, 0),
    ],
    seed=1,
)
def test_two_relays_converge_after_the_last_fault(events: list[Event], seed: int) -> None:
    mesh = SimulatedNetwork(2, seed)
    two = [Event(e.kind, e.one % 2, e.other % 2, e.seconds) for e in events]
    converges(mesh, [event for event in two if event.one != event.other], seed)


@settings(max_examples=60)
@given(events=EVENTS, seed=st.integers(0, 1000))
def test_three_relays_converge_after_the_last_fault(events: list[Event], seed: int) -> None:
    converges(SimulatedNetwork(3, seed), events, seed)
