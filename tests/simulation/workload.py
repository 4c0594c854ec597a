"""The random actions of programs, drawn from the world's seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arke.wire.limits import CHUNK
from arke.wire.messages import Op, TunnelClose
from simulation.bounds import KIB
from simulation.program import Program
from simulation.relay import Relay

if TYPE_CHECKING:
    from simulation.tunnels import End
    from simulation.world import World

CLUSTERS = ["c1", "c2", "c3"]
TOPICS = ["t1", "t2"]

_ACTIONS = {
    "send requests": 40,
    "send a request to a member": 10,
    "open a tunnel": 8,
    "use a tunnel": 16,
    "cancel": 8,
    "broadcast": 14,
    "publish": 14,
    "subscribe": 4,
    "unsubscribe": 2,
    "watch": 4,
    "unwatch": 2,
    "serve": 5,
    "stop serving": 2,
    "leave": 2,
}
_HANDLINGS = {"answer": 50, "answer late": 25, "raise": 7, "refuse": 8, "hang": 10}
_PROMPT = {"answer": 65, "answer late": 25, "raise": 5, "refuse": 5}
_TIMEOUTS = (0.0, 0.05, 0.3, 1.0, 3.0, 60.0)
_TIMEOUT_WEIGHTS = (1, 4, 10, 25, 25, 25)


class Workload:
    """`pause` is the mean time between two actions of a program, in seconds."""

    def __init__(self, world: World, pause: float, *, prompt: bool) -> None:
        self._world = world
        self._random = world.random
        self._pause = pause
        self.clusters = CLUSTERS
        self._handlings = _PROMPT if prompt else _HANDLINGS
        self.stopped = False
        """Programs start no new actions, and members reply to every request at once."""

    # New programs.

    def attach_some(self, relay: Relay) -> None:
        """Attach one to three programs to a relay that has started."""
        for _ in range(self._random.choice((1, 2, 2, 3))):
            self._world.schedule.after(self._random.uniform(0.0, 0.3), self.attach, relay)

    def attach(self, relay: Relay, cluster: str | None = None) -> Program | None:
        if not relay.up or relay.paused or relay.core.router.draining:
            return None
        program = Program(self._world, relay)
        if cluster is None and self._random.random() < 0.65:
            cluster = self._random.choice(CLUSTERS)
        if cluster is not None:
            program.serve(cluster)
        program.flush()
        if not self.stopped:
            self._next(program)
        return program

    # Actions.

    def _next(self, program: Program) -> None:
        program.after(self._random.expovariate(1 / self._pause), self._act, program)

    def _act(self, program: Program) -> None:
        if self.stopped or not program.may_send:
            return
        (action,) = self._random.choices(list(_ACTIONS), list(_ACTIONS.values()))
        getattr(self, "_" + action.replace(" ", "_"))(program)
        if not program.detached:
            self._next(program)

    def _send_requests(self, program: Program) -> None:
        random = self._random
        for _ in range(random.choice((1, 1, 2, 6))):
            cluster = "nowhere" if random.random() < 0.03 else random.choice(CLUSTERS)
            idempotent = random.random() < 0.3
            program.caller.send_request(
                cluster, timeout=self._timeout(), idempotent=idempotent, size=self._size(program)
            )

    def _send_a_request_to_a_member(self, program: Program) -> None:
        member = self._some_member()
        if member is not None:
            idempotent = self._random.random() < 0.3
            program.caller.send_request(
                "",
                member=member,
                timeout=self._timeout(),
                idempotent=idempotent,
                size=self._size(program),
            )

    def _open_a_tunnel(self, program: Program) -> None:
        member = self._some_member() if self._random.random() < 0.2 else None
        cluster = "" if member else self._random.choice(CLUSTERS)
        program.caller.send_request(cluster, member=member, timeout=self._timeout(), opens=True)

    def _use_a_tunnel(self, program: Program) -> None:
        ends = list(program.tunnels.ends.values())
        if not ends:
            self._open_a_tunnel(program)
            return
        end = self._random.choice(ends)
        what = self._random.random()
        if what < 0.6:
            end.send(self._random.choice((10, 3_000, 80 * KIB)))
        elif what < 0.75:
            end.planned_close = self._random.choice((TunnelClose.SEND_CLOSED, TunnelClose.CLOSED))
            end.pump()
        elif what < 0.8:
            end.end(TunnelClose.ABORTED)
        else:
            end.reads = not end.reads
            end.read()

    def _cancel(self, program: Program) -> None:
        if program.caller.open:
            program.caller.cancel(self._random.choice(list(program.caller.open.values())))

    def _broadcast(self, program: Program) -> None:
        self._cast(program, Op.BROADCAST, self._random.choice(CLUSTERS))

    def _publish(self, program: Program) -> None:
        self._cast(program, Op.PUBLISH, self._random.choice(TOPICS))

    def _cast(self, program: Program, op: Op, name: str) -> None:
        random = self._random
        for _ in range(random.choice((1, 1, 1, 3, 3, 20))):
            if random.random() < 0.05:
                program.fanout.send(op, name, random.randint(CHUNK, program.largest))
            else:
                program.fanout.send(op, name, shared=random.random() < 0.5)

    def _subscribe(self, program: Program) -> None:
        program.fanout.subscribe(self._random.choice(TOPICS))

    def _unsubscribe(self, program: Program) -> None:
        if program.fanout.topics:
            program.fanout.unsubscribe(self._random.choice(program.fanout.topics))

    def _watch(self, program: Program) -> None:
        program.fanout.watch(self._random.choice(CLUSTERS))

    def _unwatch(self, program: Program) -> None:
        if program.fanout.watched_members:
            program.fanout.unwatch(self._random.choice(list(program.fanout.watched_members)))

    def _serve(self, program: Program) -> None:
        if program.cluster is None and program.on_left is None:
            program.serve(self._random.choice(CLUSTERS))
        elif self._random.random() < 0.3:
            self.attach(program.attachment.relay)

    def _stop_serving(self, program: Program) -> None:
        if program.cluster is not None and program.on_left is None:
            program.stop_serving(lambda: None)

    def _leave(self, program: Program) -> None:
        relay = program.attachment.relay
        program.leave()
        self._world.schedule.after(self._random.uniform(0.0, 1.0), self.attach, relay)

    # Handling requests.

    def handling(self) -> str:
        """Choose what a member does with a request."""
        if self.stopped:
            return "answer"
        (what,) = self._random.choices(list(self._handlings), list(self._handlings.values()))
        return what

    def plan_tunnel(self, end: End) -> None:
        """Choose what this end of a new tunnel does."""
        random = self._random
        if self.stopped:
            end.planned_close = TunnelClose.SEND_CLOSED
            end.send(end.program.world.final_tunnel_bytes(end))
            return
        end.planned_close = random.choice(
            (TunnelClose.SEND_CLOSED, TunnelClose.SEND_CLOSED, TunnelClose.CLOSED, None)
        )
        end.reads = random.random() < 0.9
        end.send(random.choice((0, 10, 3_000, 20 * KIB, 150 * KIB)))

    # Random choices.

    def _timeout(self) -> float:
        return self._random.choices(_TIMEOUTS, _TIMEOUT_WEIGHTS)[0]

    def _size(self, program: Program) -> int:
        draw = self._random.random()
        if draw < 0.05:
            return self._random.randint(CHUNK, program.largest)
        return 4 * KIB if draw < 0.1 else 0

    def _some_member(self) -> str | None:
        """Choose a member; it may have left since."""
        members = self._world.recent_members
        return self._random.choice(members) if members else None
