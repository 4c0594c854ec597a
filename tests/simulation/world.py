"""One network of nodes and one run of it: some seconds of work and faults, then final checks."""

from __future__ import annotations

from random import Random

from simulation.coverage import Coverage
from simulation.faults import KINDS, Faults
from simulation.final_checks import FinalChecks
from simulation.invariants import check_relay
from simulation.links import Cables
from simulation.program import Program
from simulation.relay import Relay
from simulation.requests import Request
from simulation.schedule import Schedule
from simulation.trace import Trace
from simulation.tunnels import End, Tunnel
from simulation.workload import Workload

_CHECK_INTERVAL = 97
"""Steps between two checks of the tables of the relay that ran last."""

_MAX_RECENT_MEMBERS = 60


class Node:
    """A machine. Its relay may stop, and a new one has a new identity."""

    def __init__(self) -> None:
        self.relay: Relay | None = None
        self.incarnations = 0


class World:
    """Every random choice is drawn from one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        random = self.random = Random(seed)
        self.schedule = Schedule()
        self.trace = Trace(self.schedule)
        self.coverage = Coverage()
        self.cables = Cables(self)
        self.faults = Faults(self)
        self.style = random.choices(("mixed", "no faults", "rolling"), (80, 8, 12))[0]
        size = random.choices((3, 4, 5, 6, 9, 12, 30), (40, 22, 12, 8, 4, 2, 0.4))[0]
        self.seconds = random.uniform(2.0, 4.5) if size < 9 else 2.0
        self._all_known = random.random() < 0.5
        self.workload = Workload(
            self,
            random.choice((0.08, 0.2, 0.4)) * max(1.0, size / 4),
            prompt=self.style == "rolling",
        )
        self.nodes = [Node() for _ in range(size)]
        self.all: list[Relay] = []
        """All relays, also those that have stopped."""
        self.programs: dict[Program, None] = {}
        """The attached programs."""
        self.requests: dict[str, Request] = {}
        self.tunnels: dict[str, Tunnel] = {}
        self.senders: dict[str, str] = {}
        self.recent_members: list[str] = []
        self._names = 0
        self._last_checked_step = 0

    def run(self) -> None:
        """Run the world, and check it at the end. Raises Violation."""
        for place in range(len(self.nodes)):
            self.schedule.after(self.random.uniform(0.0, 1.0), self.start, place)
        if self.style == "mixed":
            for _ in range(self.random.randint(1, 3)):
                at = self.random.uniform(0.3, self.seconds)
                self.schedule.after(at, self._burst)
        elif self.style == "rolling":
            self.schedule.after(1.5, self._roll, 0)
        self.schedule.run(self.seconds)
        FinalChecks(self).run()

    def _burst(self) -> None:
        for _ in range(self.random.randint(1, 5)):
            kind = self.random.choice(KINDS)
            self.schedule.after(self.random.uniform(0.0, 0.6), self.faults.begin, kind)

    def _roll(self, place: int) -> None:
        """Replace every relay, one after another."""
        relay = self.nodes[place].relay
        if self.workload.stopped:
            return
        if relay is not None and relay.node.endswith(".1"):
            if not relay.core.router.draining:
                self.faults.drain(relay)
        elif relay is not None and relay.core.router.settled:
            place += 1
        if place < len(self.nodes):
            self.schedule.after(0.1, self._roll, place)

    # Nodes and relays.

    def relays(self) -> list[Relay]:
        return [node.relay for node in self.nodes if node.relay is not None]

    def name(self, kind: str) -> str:
        self._names += 1
        return f"{kind}{self._names}"

    def start(self, place: int) -> None:
        """Start a relay on a node that has none."""
        node = self.nodes[place]
        if node.relay is not None:
            return
        node.incarnations += 1
        relay = node.relay = Relay(self, place, node.incarnations)
        self.all.append(relay)
        self.trace.note(relay.node, "starts")
        for other in range(len(self.nodes)):
            near = other == (place + 1) % len(self.nodes)
            if other != place and (self._all_known or near):
                relay.joins.hint(other)
        if self._all_known:
            for other_relay in self.relays():
                if other_relay is not relay and not other_relay.paused:
                    other_relay.joins.hint(place, relay.node)
        relay.start()
        if not self.workload.stopped:
            self.workload.attach_some(relay)

    def start_after_exit(self, relay: Relay) -> None:
        if relay.up:
            self.schedule.after(0.05, self.start_after_exit, relay)
        else:
            self.start(relay.place)

    # Checks.

    def on_relay_step(self, relay: Relay) -> None:
        """Check the tables of a relay that ran, from time to time."""
        if self.schedule.steps >= self._last_checked_step + _CHECK_INTERVAL:
            self._last_checked_step = self.schedule.steps
            if relay.up:
                check_relay(relay)

    def add_recent_member(self, member_id: str) -> None:
        self.recent_members.append(member_id)
        del self.recent_members[:-_MAX_RECENT_MEMBERS]

    def final_tunnel_bytes(self, end: End) -> int:
        return 100_000 if end.side == 0 else 5_000
