"""What befalls nodes, cables and programs; each for a while, several at once."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING

from arke.wire.messages import Op
from simulation.bounds import KIB
from simulation.lines import Link
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

_AFTERMATH = 0.5
"""Seconds after a fault in which it still counts: what it broke is still being mended."""

_TRIES = 20

_HARMLESS = {"slow", "flood", "program leaves", "program stalls", "drain"}
"""Kinds that by themselves lose no member: none of its calls may say so."""


class Faults:
    """Begins faults, and knows which there were."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = world.random
        self._undo: list[Callable[[], object]] = []
        self.intervals: list[tuple[str, float, float]] = []
        self.may_lose = False
        """Something has happened in which calls that were begun can be lost."""
        self.may_lose_links = False

    def begin(self, kind: str) -> None:
        """One fault of a kind; nothing, where there is nobody to befall, or all is to be healed."""
        if self._world.workload.calm:
            return
        seconds = self._random.choice((0.05, 0.2, 0.6, 1.0, 2.2, 3.5))
        self.may_lose |= kind not in _HARMLESS
        self.may_lose_links = True
        ends = getattr(self, "_" + kind.replace(" ", "_"))(seconds)
        if ends is not None:
            now = self._world.schedule.time
            self.intervals.append((kind, now, now + ends + _AFTERMATH))
            self._world.trace.note("FAULT:", kind, f"for {ends:g} s")

    def heal(self) -> None:
        """All that lasts ends now."""
        for undo in list(self._undo):
            undo()

    @property
    def overlaps(self) -> set[tuple[str, str]]:
        """Which kinds overlapped, in the order of KINDS."""
        found = set()
        for index, (kind, began, ended) in enumerate(self.intervals):
            for other, later, _ in self.intervals[index + 1 :]:
                if began <= later <= ended:
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
            self._world.lines.cut(*line)
            self._world.trace.note("cable", *line, "is cut")
            self._later(seconds, lambda line=line: self._mend(line))

    def _loss(self, seconds: float) -> float | None:
        one, other = self._two_places()
        for line in ((one, other), (other, one)):
            self._world.lines.fail(*line)
            self._world.trace.note("cable", *line, "loses what is in flight")
            self._later(seconds, lambda line=line: self._mend(line))
        return seconds

    def _mend(self, line: tuple[int, int]) -> None:
        self._world.lines.heal(*line)
        self._world.trace.note("cable", *line, "is mended")

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
            line = self._world.lines[ends]
            line.slow += delay
            self._later(seconds, lambda line=line: setattr(line, "slow", line.slow - delay))
        return seconds

    # Relays.

    def _crash(self, seconds: float) -> float | None:
        relay = self._some_relay()
        if relay is None:
            return None
        self._world.trace.note(relay.node, "crashes")
        relay.crash()
        self._later(seconds, lambda: self._world.start(relay.place))
        return seconds

    def _pause(self, seconds: float) -> float | None:
        relay = self._some_relay()
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
        relay = self._some_relay()
        if relay is None or relay.core.router.draining:
            return None
        self.drain(relay, seconds)
        return seconds

    def drain(self, relay: Relay, seconds: float = 0.2) -> None:
        """A relay leaves properly, and another one takes its place."""
        self.may_lose_links = True
        self._world.trace.note(relay.node, "drains")
        relay.do(relay.drain)
        self._later(seconds, lambda: self._world.start_when_left(relay))

    def _admission(self, seconds: float) -> float | None:
        self._end_an_admission(_TRIES)
        return 0.0

    def _end_an_admission(self, tries: int) -> None:
        """At a bad moment: while something is on its way."""
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
        program = self._some_program()
        if program is None:
            return None
        relay = program.attachment.relay
        program.crash()
        self._world.schedule.after(seconds, self._world.workload.attach, relay)
        return 0.0

    def _program_leaves(self, seconds: float) -> float | None:
        program = self._some_program()
        if program is None or program.stalled:
            return None
        program.do(program.leave)
        self._world.schedule.after(seconds, self._world.workload.attach, program.attachment.relay)
        return 0.0

    def _program_stalls(self, seconds: float) -> float | None:
        program = self._some_program()
        if program is None or program.stalled:
            return None
        self._world.trace.note(program.key, "stalls")
        program.stall()
        self._later(seconds, lambda: self._go_on(program))
        return seconds

    def _go_on(self, program: Program) -> None:
        self._world.trace.note(program.key, "goes on")
        program.go_on()

    def _flood(self, seconds: float) -> float | None:
        """Somebody asks and tells more than there is room for."""
        program = self._some_program()
        if program is None or program.stalled:
            return None
        for _ in range(self._random.randint(20, 60)):
            program.after(self._random.uniform(0.0, 0.3), self._pour, program)
        return 0.3

    def _pour(self, program: Program) -> None:
        workload, random = self._world.workload, self._random
        if workload.calm or not program.asks:
            return
        size = random.choice((2, 20, 60)) * KIB
        if random.random() < 0.5:
            program.caller.ask(random.choice(workload.clusters), timeout=1.0, size=size)
        else:
            program.listener.cast(Op.BROADCAST, random.choice(workload.clusters), size)

    # Draws.

    def _later(self, seconds: float, undo: Callable[[], object]) -> None:
        """End a fault after a while, or when all is healed."""

        def once() -> None:
            if once in self._undo:
                self._undo.remove(once)
                undo()

        self._undo.append(once)
        self._world.schedule.after(seconds, once)

    def _two_places(self) -> tuple[int, int]:
        one, other = self._random.sample(range(len(self._world.nodes)), 2)
        return one, other

    def _some_relay(self) -> Relay | None:
        relays = [relay for relay in self._world.relays() if not relay.paused]
        return self._random.choice(relays) if relays else None

    def _some_program(self) -> Program | None:
        programs = list(self._world.programs)
        return self._random.choice(programs) if programs else None
