"""The end of a run: end all faults, then check that relays converge and that everything works."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from arke.wire.limits import CHUNK
from arke.wire.messages import TunnelClose as Way
from arke_relay.core.membership import CONFIRM_TIMEOUT, HEARTBEAT, SILENCE_TIMEOUT
from simulation.bounds import CONVERGENCE_TIME
from simulation.convergence import differences
from simulation.healthy_network import COMPLETION_TIME, check_everything_works
from simulation.invariants import check_idle, check_no_programs, check_relay
from simulation.trace import Violation

if TYPE_CHECKING:
    from simulation.program import Program
    from simulation.world import World

_LOOK = 0.25


class FinalChecks:
    """End all faults of a world, and check it. Raises Violation."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._schedule = world.schedule

    def run(self) -> None:
        world = self._world
        world.trace.note("HEALED")
        world.workload.stopped = True
        world.faults.heal()
        for place in range(len(world.nodes)):
            self._schedule.after(world.random.uniform(0.0, 0.5), world.start, place)
        # Relays may still notice earlier faults until the silence time-out.
        self._schedule.run(SILENCE_TIMEOUT + 2 * HEARTBEAT)
        self._await_convergence(CONVERGENCE_TIME)
        self._cancel_everything()
        self._schedule.run(COMPLETION_TIME)
        self._check_requests()
        check_everything_works(world)
        if world.random.random() < 0.2:
            self._check_stable()
        self._check_requests()
        for relay in world.relays():
            check_relay(relay)
            check_idle(relay)
        self._count()
        for program in list(world.programs):
            program.do(program.leave)
        self._schedule.run(COMPLETION_TIME)
        for relay in world.relays():
            check_idle(relay)
            check_no_programs(relay)

    # Convergence.

    def _await_convergence(self, seconds: float) -> None:
        """All relays must converge within `seconds` after the last relay has drained."""
        world = self._world
        ends = self._schedule.time + seconds
        while True:
            self._schedule.run(_LOOK)
            found = next(self._differences(), None)
            if found is None:
                return
            if any(relay.core.router.draining for relay in world.relays()):
                ends = max(ends, self._schedule.time + seconds)
            if self._schedule.time > ends:
                text = "; ".join(islice(self._differences(), 6))
                raise Violation("relays converge after the last fault", text, *found.split()[:1])

    def _check_stable(self) -> None:
        losses = [relay.losses for relay in self._world.relays()]
        self._schedule.run(SILENCE_TIMEOUT + CONFIRM_TIMEOUT + 1.0)
        found = next(self._differences(), None)
        if found is not None or losses != [relay.losses for relay in self._world.relays()]:
            raise Violation("converged relays stay converged", found or "a link was lost")

    def _differences(self) -> Iterator[str]:
        relays = self._world.relays()
        if len(relays) < len(self._world.nodes):
            yield "a relay has not started"
        for relay in relays:
            if not relay.core.router.settled:
                yield f"{relay.node} is not settled"
            yield from differences(relay, relays)

    # Requests and tunnels from before the checks.

    def _cancel_everything(self) -> None:
        for program in list(self._world.programs):
            program.do(self._cancel_program, program)

    def _cancel_program(self, program: Program) -> None:
        for request in list(program.caller.open.values()):
            if not request.outcome_dropped:
                program.caller.cancel(request)
        for end in list(program.tunnels.ends.values()):
            end.reads, end.planned_close = True, Way.SEND_CLOSED
            end.unsent = min(end.unsent, CHUNK)
            end.read()
            end.pump()

    def _check_requests(self) -> None:
        """Every request has ended, no handler runs for an ended request, every tunnel is closed."""
        for program in self._world.programs:
            for request in program.caller.open.values():
                if request.outcome_dropped:
                    continue
                raise Violation("a request ends", f"{request.key} has not", request.key)
            for request_id in program.member.abandoned_handlers():
                text = f"{program.key} still handles request {request_id}"
                raise Violation("handlers of ended requests are cancelled", text, program.key)
            for end in program.tunnels.ends.values():
                text = f"end {end.side} of {end.tunnel.key}, {end.unsent} bytes unsent"
                raise Violation("a tunnel ends", text, end.tunnel.key)

    def _count(self) -> None:
        """Add the counters of all relays to the coverage."""
        for relay in self._world.all:
            counters = relay.core.counters
            self._world.coverage.seen["retries"] += counters.retries
            for cause, count in counters.drops.items():
                self._world.coverage.seen[f"drop: {cause}"] += count
        self._world.coverage.overlaps.update(self._world.faults.overlaps)
