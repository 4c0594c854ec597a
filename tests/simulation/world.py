"""A whole network of nodes, and one run of it: some seconds of work and faults, then the ending."""

from __future__ import annotations

from random import Random

from simulation.ending import Ending
from simulation.faults import KINDS, Faults
from simulation.invariants import check_relay
from simulation.lines import Lines
from simulation.program import Program
from simulation.relay import Relay
from simulation.requests import Request
from simulation.schedule import Schedule
from simulation.tally import Tally
from simulation.trace import Trace
from simulation.tunnels import End, Tunnel
from simulation.workload import Workload

_LOOK = 97
"""Steps between two looks at all tables of whichever relay just ran."""

_LATELY = 60


class Node:
    """A machine, whose relay comes and goes; a new one has a new identity."""

    def __init__(self) -> None:
        self.relay: Relay | None = None
        self.incarnations = 0


class World:
    """Made from one seed, from which every choice is drawn."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        random = self.random = Random(seed)
        self.schedule = Schedule()
        self.trace = Trace(self.schedule)
        self.tally = Tally()
        self.lines = Lines(self)
        self.faults = Faults(self)
        self.style = random.choices(("mixed", "calm", "rolling"), (80, 8, 12))[0]
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
        """Every relay there was."""
        self.programs: dict[Program, None] = {}
        """Those that are attached."""
        self.requests: dict[str, Request] = {}
        self.tunnels: dict[str, Tunnel] = {}
        self.senders: dict[str, str] = {}
        self.lately_members: list[str] = []
        self._names = 0
        self._looked = 0

    def run(self) -> None:
        """Raises Violation."""
        for place in range(len(self.nodes)):
            self.schedule.after(self.random.uniform(0.0, 1.0), self.start, place)
        if self.style == "mixed":
            for _ in range(self.random.randint(1, 3)):
                at = self.random.uniform(0.3, self.seconds)
                self.schedule.after(at, self._burst)
        elif self.style == "rolling":
            self.schedule.after(1.5, self._roll, 0)
        self.schedule.run(self.seconds)
        Ending(self).run()

    def _burst(self) -> None:
        for _ in range(self.random.randint(1, 5)):
            kind = self.random.choice(KINDS)
            self.schedule.after(self.random.uniform(0.0, 0.6), self.faults.begin, kind)

    def _roll(self, place: int) -> None:
        """Every relay is replaced, one after another."""
        relay = self.nodes[place].relay
        if self.workload.calm:
            return
        if relay is not None and relay.node.endswith(".1"):
            if not relay.core.router.draining:
                self.faults.drain(relay)
        elif relay is not None and relay.core.router.settled:
            place += 1
        if place < len(self.nodes):
            self.schedule.after(0.1, self._roll, place)

    # Who there is.

    def relays(self) -> list[Relay]:
        return [node.relay for node in self.nodes if node.relay is not None]

    def name(self, kind: str) -> str:
        self._names += 1
        return f"{kind}{self._names}"

    def start(self, place: int) -> None:
        """A relay starts at a node that has none."""
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
        if not self.workload.calm:
            self.workload.attach_some(relay)

    def start_when_left(self, relay: Relay) -> None:
        if relay.up:
            self.schedule.after(0.05, self.start_when_left, relay)
        else:
            self.start(relay.place)

    # What is watched.

    def stepped(self, relay: Relay) -> None:
        """A relay has done something."""
        if self.schedule.steps >= self._looked + _LOOK:
            self._looked = self.schedule.steps
            if relay.up:
                check_relay(relay)

    def member_came(self, member_id: str) -> None:
        self.lately_members.append(member_id)
        del self.lately_members[:-_LATELY]

    def calm_octets(self, end: End) -> int:
        return 100_000 if end.side == 0 else 5_000
