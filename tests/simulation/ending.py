"""The end of a run: all is healed, everybody agrees in time, everything works, nothing is left."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from arke.wire.limits import CHUNK
from arke.wire.messages import TunnelClose as Way
from arke_relay.core.membership import CONFIRM_TIMEOUT, HEARTBEAT, SILENCE_TIMEOUT
from simulation.agreement import disagreements
from simulation.bounds import AGREED
from simulation.calm import ENOUGH, check_everything_works
from simulation.invariants import check_empty, check_over, check_relay
from simulation.trace import Violation

if TYPE_CHECKING:
    from simulation.program import Program
    from simulation.world import World

_LOOK = 0.25


class Ending:
    """What is done with a world when its time is over. Raises Violation."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._schedule = world.schedule

    def run(self) -> None:
        world = self._world
        world.trace.note("HEALED")
        world.workload.calm = True
        world.faults.heal()
        for place in range(len(world.nodes)):
            self._schedule.after(world.random.uniform(0.0, 0.5), world.start, place)
        # What was suffered before is still to be noticed; then it must be over.
        self._schedule.run(SILENCE_TIMEOUT + 2 * HEARTBEAT)
        self._agree(AGREED)
        self._give_up_everything()
        self._schedule.run(ENOUGH)
        self._check_calls()
        check_everything_works(world)
        if world.random.random() < 0.2:
            self._stay_agreed()
        self._check_calls()
        for relay in world.relays():
            check_relay(relay)
            check_over(relay)
        self._count()
        for program in list(world.programs):
            program.do(program.leave)
        self._schedule.run(ENOUGH)
        for relay in world.relays():
            check_over(relay)
            check_empty(relay)

    # Agreement.

    def _agree(self, seconds: float) -> None:
        """Everybody must know all, soon: relays that still leave take their time."""
        world = self._world
        ends = self._schedule.time + seconds
        while True:
            self._schedule.run(_LOOK)
            found = next(self._disagreements(), None)
            if found is None:
                return
            if any(relay.core.router.draining for relay in world.relays()):
                ends = max(ends, self._schedule.time + seconds)
            if self._schedule.time > ends:
                text = "; ".join(islice(self._disagreements(), 6))
                raise Violation("all agree soon after all is healed", text, *found.split()[:1])

    def _stay_agreed(self) -> None:
        losses = [relay.losses for relay in self._world.relays()]
        self._schedule.run(SILENCE_TIMEOUT + CONFIRM_TIMEOUT + 1.0)
        found = next(self._disagreements(), None)
        if found is not None or losses != [relay.losses for relay in self._world.relays()]:
            raise Violation("who agrees stays agreed", found or "a link was lost")

    def _disagreements(self) -> Iterator[str]:
        relays = self._world.relays()
        if len(relays) < len(self._world.nodes):
            yield "a relay has not started"
        for relay in relays:
            if not relay.core.router.settled:
                yield f"{relay.node} is not settled"
            yield from disagreements(relay, relays)

    # The old ends.

    def _give_up_everything(self) -> None:
        for program in list(self._world.programs):
            program.do(self._give_up, program)

    def _give_up(self, program: Program) -> None:
        for request in list(program.caller.open.values()):
            if not request.no_room:
                program.caller.cancel(request)
        for end in list(program.tunnels.ends.values()):
            end.reads, end.plan = True, Way.SEND_CLOSED
            end.wants = min(end.wants, CHUNK)
            end.read()
            end.pump()

    def _check_calls(self) -> None:
        """Every request has ended, no handler runs for nobody, and no tunnel lives by halves."""
        for program in self._world.programs:
            for request in program.caller.open.values():
                if request.no_room:
                    continue
                raise Violation("a request ends", f"{request.key} has not", request.key)
            for call in program.member.unwanted():
                text = f"{program.key} still works on call {call}"
                raise Violation("who is not waited for is told so", text, program.key)
            for end in program.tunnels.ends.values():
                text = f"end {end.side} of {end.tunnel.key}, {end.wants} octets unsent"
                raise Violation("a tunnel ends", text, end.tunnel.key)

    def _count(self) -> None:
        """What the relays have counted."""
        for relay in self._world.all:
            counters = relay.core.counters
            self._world.tally.seen["retries"] += counters.retries
            for cause, count in counters.drops.items():
                self._world.tally.seen[f"drop: {cause}"] += count
        self._world.tally.overlaps.update(self._world.faults.overlaps)
