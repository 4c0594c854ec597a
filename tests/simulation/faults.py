"""Random faults of nodes, cables and programs; several may overlap."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING

from arke.wire.messages import Op
from simulation.bounds import KIB
from simulation.links import Link
from simulation.relay import Relay

if TYPE_CHECKING:
    from simulation.program import Program
    from simulation.world import World

KINDS = (
    "cut",
    "one way cut",
    "loss",
    "reset",
    "slow",
    "crash",
    "pause",
    "drain",
    "admission",
    "program crash",
    "program leaves",
    "program stalls",
    "flood",
)
PAIRS = tuple(combinations_with_replacement(KINDS, 2))

_RECOVERY_TIME = 0.5
"""Seconds after a fault in which it still counts for overlaps: the network is recovering."""

_MAX_TRIES = 20

_LOSSLESS = {"slow", "flood", "program leaves", "program stalls", "drain"}
"""Kinds of faults in which no request may end as MEMBER_LOST."""


class Faults:
    """Starts and ends faults, and records them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = world.random
        self._undo: list[Callable[[], object]] = []
        self.intervals: list[tuple[str, float, float]] = []
        self.may_lose = False
        """A fault has happened in which started requests can be lost."""
        self.may_lose_links = False

    def begin(self, kind: str) -> None:
        """Start one fault of a kind, if there is a target and the run has not reached its end."""
        if self._world.workload.stopped:
            return
        seconds = self._random.choice((0.05, 0.2, 0.6, 1.0, 2.2, 3.5))
        self.may_lose |= kind not in _LOSSLESS
        self.may_lose_links = True
        ends = getattr(self, "_" + kind.replace(" ", "_"))(seconds)
        if ends is not None:
            now = self._world.schedule.time
            self.intervals.append((kind, now, now + ends + _RECOVERY_TIME))
            self._world.trace.note("FAULT:", kind, f"for {ends:g} s")

    def heal(self) -> None:
        """End all lasting faults now."""
        for undo in list(self._undo):
            undo()

    @property
    def overlaps(self) -> set[tuple[str, str]]:
        """Pairs of kinds that overlapped, in the order of KINDS."""
        found = set()
        for index, (kind, start, end) in enumerate(self.intervals):
            for other, later, _ in self.intervals[index + 1 :]:
                if start <= later <= end:
                    found.add(tuple(sorted((kind, other), key=KINDS.index)))
        return found

    # Cables.

    def _cut(self, seconds: float) -> float | None:
        one, other = self._two_places()
        self._cut_lines(seconds, (one, other), (other, one))
        return seconds

    def _one_way_cut(self, seconds: float) -> float | None:
        self._cut_lines(seconds, self._two_places())
        return seconds

    def _cut_lines(self, seconds: float, *lines: tuple[int, int]) -> None:
        for line in lines:
            self._world.cables.cut(*line)
            self._world.trace.note("cable", *line, "is cut")
            self._later(seconds, lambda line=line: self._restore_cable(line))

    def _loss(self, seconds: float) -> float | None:
        one, other = self._two_places()
        for line in ((one, other), (other, one)):
            self._world.cables.fail(*line)
            self._world.trace.note("cable", *line, "loses what is in flight")
            self._later(seconds, lambda line=line: self._restore_cable(line))
        return seconds

    def _restore_cable(self, line: tuple[int, int]) -> None:
        self._world.cables.heal(*line)
        self._world.trace.note("cable", *line, "is restored")

    def _reset(self, seconds: float) -> float | None:
        links = self._links()
        if not links:
            return None
        _, link = self._random.choice(links)
        link.lose()
        link.end_soon(self._random.uniform(0.0, 0.1), "the connection broke")
        return 0.0

    def _slow(self, seconds: float) -> float | None:
        one, other = self._two_places()
        delay = self._random.choice((0.02, 0.1, 0.3))
        for ends in ((one, other), (other, one)):
            line = self._world.cables[ends]
            line.slow += delay
            self._later(seconds, lambda line=line: setattr(line, "slow", line.slow - delay))
        return seconds

    # Relays.

    def _crash(self, seconds: float) -> float | None:
        relay = self._random_relay()
        if relay is None:
            return None
        self._world.trace.note(relay.node, "crashes")
        relay.crash()
        self._later(seconds, lambda: self._world.start(relay.place))
        return seconds

    def _pause(self, seconds: float) -> float | None:
        relay = self._random_relay()
        if relay is None:
            return None
        self._world.trace.note(relay.node, "is paused")
        relay.pause()
        self._later(seconds, lambda: self._resume(relay))
        return seconds

    def _resume(self, relay: Relay) -> None:
        if relay.paused:
            self._world.trace.note(relay.node, "is resumed")
            relay.resume()

    def _drain(self, seconds: float) -> float | None:
        relay = self._random_relay()
        if relay is None or relay.core.router.draining:
            return None
        self.drain(relay, seconds)
        return seconds

    def drain(self, relay: Relay, seconds: float = 0.2) -> None:
        """Stop a relay gracefully, and start another one on its node."""
        self.may_lose_links = True
        self._world.trace.note(relay.node, "drains")
        relay.do(relay.drain)
        self._later(seconds, lambda: self._world.start_after_exit(relay))

    def _admission(self, seconds: float) -> float | None:
        self._end_an_admission(_MAX_TRIES)
        return 0.0

    def _end_an_admission(self, tries: int) -> None:
        """End the admission of a peer while frames to it are in flight."""
        links = [(relay, link) for relay, link in self._links() if link.in_flight or not tries]
        if links:
            relay, link = self._random.choice(links)
            relay.do(relay.end_admission, link.node)
        elif tries:
            self._world.schedule.after(0.01, self._end_an_admission, tries - 1)

    def _links(self) -> list[tuple[Relay, Link]]:
        return [
            (relay, link)
            for relay in self._world.relays()
            for neighbour in relay.membership.neighbours.values()
            if isinstance(link := neighbour.link, Link) and not relay.paused
        ]

    # Programs.

    def _program_crash(self, seconds: float) -> float | None:
        program = self._random_program()
        if program is None:
            return None
        relay = program.attachment.relay
        program.crash()
        self._world.schedule.after(seconds, self._world.workload.attach, relay)
        return 0.0

    def _program_leaves(self, seconds: float) -> float | None:
        program = self._random_program()
        if program is None or program.stalled:
            return None
        program.do(program.leave)
        self._world.schedule.after(seconds, self._world.workload.attach, program.attachment.relay)
        return 0.0

    def _program_stalls(self, seconds: float) -> float | None:
        program = self._random_program()
        if program is None or program.stalled:
            return None
        self._world.trace.note(program.key, "stalls")
        program.stall()
        self._later(seconds, lambda: self._resume_program(program))
        return seconds

    def _resume_program(self, program: Program) -> None:
        self._world.trace.note(program.key, "resumes")
        program.resume()

    def _flood(self, seconds: float) -> float | None:
        """Make one program send more than its outbox can hold."""
        program = self._random_program()
        if program is None or program.stalled:
            return None
        for _ in range(self._random.randint(20, 60)):
            program.after(self._random.uniform(0.0, 0.3), self._send_flood, program)
        return 0.3

    def _send_flood(self, program: Program) -> None:
        workload, random = self._world.workload, self._random
        if workload.stopped or not program.may_send:
            return
        size = random.choice((2, 20, 60)) * KIB
        if random.random() < 0.5:
            program.caller.send_request(random.choice(workload.clusters), timeout=1.0, size=size)
        else:
            program.fanout.send(Op.BROADCAST, random.choice(workload.clusters), size)

    # Random choices.

    def _later(self, seconds: float, undo: Callable[[], object]) -> None:
        """End a fault after `seconds`, or when all faults end."""

        def once() -> None:
            if once in self._undo:
                self._undo.remove(once)
                undo()

        self._undo.append(once)
        self._world.schedule.after(seconds, once)

    def _two_places(self) -> tuple[int, int]:
        one, other = self._random.sample(range(len(self._world.nodes)), 2)
        return one, other

    def _random_relay(self) -> Relay | None:
        relays = [relay for relay in self._world.relays() if not relay.paused]
        return self._random.choice(relays) if relays else None

    def _random_program(self) -> Program | None:
        programs = list(self._world.programs)
        return self._random.choice(programs) if programs else None
