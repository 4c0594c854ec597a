"""In a calm network every request is answered, every cast arrives and every tunnel brings all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arke.wire.limits import CHUNK
from arke.wire.messages import Op
from simulation.trace import Violation

if TYPE_CHECKING:
    from simulation.program import Program
    from simulation.requests import Request
    from simulation.world import World

ENOUGH = 1.5
"""Seconds in which all that is asked in a calm network is over."""

_BREATH = 0.05

_SOME = 5
"""Relays from which is asked, and members that are asked by their ids, of many."""


def check_everything_works(world: World) -> None:
    """Raises Violation."""
    calm = _Calm(world)
    for relay in world.random.sample(world.relays(), min(_SOME, len(world.nodes))):
        client = world.workload.attach(relay, cluster="calm")
        assert client
        calm.ask(client)
        calm.tell(client)
    world.schedule.run(ENOUGH)
    calm.check_answers()
    calm.check_tunnels()
    calm.check_casts()


class _Calm:
    """What was asked and told, and must have come about."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._members = [program for program in world.programs if program.cluster is not None]
        self._clusters = list(dict.fromkeys(m.cluster for m in self._members if m.cluster))
        self._topics = list(dict.fromkeys(t for p in world.programs for t in p.listener.topics))
        self._asked: list[Request] = []
        self._told: list[tuple[Op, str, Program, int]] = []

    def ask(self, client: Program) -> None:
        for cluster in self._clusters:
            self._asked.append(client.caller.ask(cluster))
            self._asked.append(client.caller.ask(cluster, size=CHUNK + 1))
            self._asked.append(client.caller.ask(cluster, opens=True))
        some = self._world.random.sample(self._members, min(_SOME, len(self._members)))
        self._asked += [client.caller.ask("", member=member.member_id) for member in some]
        self._catch_up(client)

    def tell(self, client: Program) -> None:
        for op, names in ((Op.BROADCAST, self._clusters), (Op.PUBLISH, self._topics)):
            for name in names:
                for size in (0, CHUNK + 1, 0):
                    number = client.listener.cast(op, name, size, shared=not size)
                self._told.append((op, name, client, number))
                self._catch_up(client)

    def check_answers(self) -> None:
        for request in self._asked:
            if request.outcome != ("opened" if request.opens else "answered"):
                text = f"{request.key} ended {request.outcome}"
                raise Violation("a healed network answers", text, request.key)

    def check_tunnels(self) -> None:
        for request in (request for request in self._asked if request.opens):
            for end in self._world.tunnels[request.key].ends:
                if end is None or not end.over or end.wants:
                    text = f"{request.key} did not bring everything"
                    raise Violation("a healed network carries tunnels", text, request.key)

    def check_casts(self) -> None:
        for program in self._world.programs:
            for op, name, sender, number in self._told:
                told = op == Op.BROADCAST and name == program.cluster
                if told or (op == Op.PUBLISH and name in program.listener.topics):
                    heard = program.listener.heard(op, name, sender.key)
                    if heard != number:
                        text = f"{program.key} heard {heard} of {number} of {sender.key} for {name}"
                        raise Violation("a healed network tells all", text, program.key, sender.key)

    def _catch_up(self, client: Program) -> None:
        """Let what was said be read, or there would be no room for more."""
        client.flush()
        self._world.schedule.run(_BREATH)
