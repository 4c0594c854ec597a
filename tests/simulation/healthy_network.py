"""Check a network without faults: each request gets its reply, and no data is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arke.wire.limits import CHUNK
from arke.wire.messages import Op
from simulation.trace import Violation

if TYPE_CHECKING:
    from simulation.program import Program
    from simulation.requests import Request
    from simulation.world import World

COMPLETION_TIME = 1.5
"""Seconds in which all requests and tunnels of a network without faults end."""

_READ_TIME = 0.05

_SAMPLE = 5
"""Number of relays with a caller, and of members that get a request by their id."""


def check_everything_works(world: World) -> None:
    """Send requests, tunnels and fan-out through several relays. Raises Violation."""
    check = _Check(world)
    for relay in world.random.sample(world.relays(), min(_SAMPLE, len(world.nodes))):
        caller = world.workload.attach(relay, cluster="calm")
        assert caller
        check.send_requests(caller)
        check.send_fanout(caller)
    world.schedule.run(COMPLETION_TIME)
    check.check_replies()
    check.check_tunnels()
    check.check_fanout()


class _Check:
    """The requests and the fan-out that were sent, and whether all arrived."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._members = [program for program in world.programs if program.cluster is not None]
        self._clusters = list(dict.fromkeys(m.cluster for m in self._members if m.cluster))
        self._topics = list(dict.fromkeys(t for p in world.programs for t in p.fanout.topics))
        self._requests: list[Request] = []
        self._sent: list[tuple[Op, str, Program, int]] = []

    def send_requests(self, program: Program) -> None:
        for cluster in self._clusters:
            self._requests.append(program.caller.send_request(cluster))
            self._requests.append(program.caller.send_request(cluster, size=CHUNK + 1))
            self._requests.append(program.caller.send_request(cluster, opens=True))
        some = self._world.random.sample(self._members, min(_SAMPLE, len(self._members)))
        self._requests += [
            program.caller.send_request("", member=member.member_id) for member in some
        ]
        self._catch_up(program)

    def send_fanout(self, program: Program) -> None:
        for op, names in ((Op.BROADCAST, self._clusters), (Op.PUBLISH, self._topics)):
            for name in names:
                for size in (0, CHUNK + 1, 0):
                    number = program.fanout.send(op, name, size, shared=not size)
                self._sent.append((op, name, program, number))
                self._catch_up(program)

    def check_replies(self) -> None:
        for request in self._requests:
            if request.outcome != ("opened" if request.opens else "answered"):
                text = f"{request.key} ended {request.outcome}"
                raise Violation("without faults each request gets its reply", text, request.key)

    def check_tunnels(self) -> None:
        for request in (request for request in self._requests if request.opens):
            for end in self._world.tunnels[request.key].ends:
                if end is None or not end.over or end.unsent:
                    text = f"the tunnel of {request.key} did not transfer all data"
                    raise Violation("without faults each tunnel transfers all", text, request.key)

    def check_fanout(self) -> None:
        for program in self._world.programs:
            for op, name, sender, number in self._sent:
                is_member = op == Op.BROADCAST and name == program.cluster
                if is_member or (op == Op.PUBLISH and name in program.fanout.topics):
                    received = program.fanout.last_received(op, name, sender.key)
                    if received != number:
                        text = f"{program.key} received {received}, not {number}, for {name}"
                        invariant = "without faults all fan-out arrives"
                        raise Violation(invariant, text, program.key, sender.key)

    def _catch_up(self, program: Program) -> None:
        """Let the relay read what was sent, to make room in the outbox."""
        program.flush()
        self._world.schedule.run(_READ_TIME)
