"""One relay: the real core and peer codec, with fake cables, joins and a fake clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from arke.wire.messages import Op
from arke_relay.core.membership import CLOSE_LINGER, HEARTBEAT, Membership, Neighbour
from arke_relay.core.message_core import MessageCore
from arke_relay.flusher import Flusher
from arke_relay.peers.batch_reader import BatchReader
from simulation.attachment import Attachment
from simulation.bounds import EXPIRY, FAREWELL, GRACE, SETTLE
from simulation.joins import Joins
from simulation.lines import Link
from simulation.trace import Violation

if TYPE_CHECKING:
    from simulation.world import World

_DRAIN_LOOK = 0.01


class Relay:
    """Runs from `start` until it `crash`es, or has `drain`ed. `place` is its node's number."""

    def __init__(self, world: World, place: int, incarnation: int) -> None:
        self.world = world
        self.place = place
        self.node = f"n{place}.{incarnation}"
        self.up = True
        self.paused = False
        self.resumed = 0.0
        """When it was resumed last, in seconds of the world."""
        self._backlog: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self._clock_began = world.random.uniform(0, 1e6)
        self._started = self.now
        self.attachments: dict[Attachment, None] = {}
        self.losses = 0
        self._sessions: dict[str, int] = {}
        """The latest of each peer that something was heard of."""
        self.flusher = Flusher()
        self.core = MessageCore(self.node, world.random.random)
        self.core.node.address = str(place)
        self.membership = Membership(self.core.peers, self._dial, self._lost)
        self.joins = Joins(world, self)
        self.batches = BatchReader(
            self.core,
            self.membership,
            self.joins.max_message,
            on_known_peer=self._known,
            on_synced=lambda peer: None,
            on_draining=lambda peer: None,
        )

    @property
    def now(self) -> float:
        """This machine's own monotonic clock."""
        return self.world.schedule.time + self._clock_began

    # Life.

    def start(self) -> None:
        random = self.world.random
        self.world.schedule.after(random.uniform(0, HEARTBEAT), self.do, self._tick)
        self.world.schedule.after(random.uniform(0, EXPIRY), self.do, self._expire)

    def do(self, act: Callable[..., object], *arguments: Any) -> None:
        """What its loop does: now, or when it runs again."""
        if self.paused:
            self._backlog.append((act, arguments))
        elif self.up:
            act(*arguments)
            self.flusher.flush()
            self.world.stepped(self)

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        """What came meanwhile was kept by the kernel, in order; timers may be looked at first."""
        if not self.paused:
            return
        self.paused = False
        self.resumed = self.world.schedule.time
        backlog, self._backlog = self._backlog, []
        if self.world.random.random() < 0.5:
            timers = (self._tick, self._expire)
            backlog.sort(key=lambda due: due[0] not in timers)
        for act, arguments in backlog:
            self.do(act, *arguments)

    def crash(self) -> None:
        """The process is gone, and its kernel tells whoever has a connection with it."""
        self.up = self.paused = False
        world, random = self.world, self.world.random
        for attachment in list(self.attachments):
            attachment.relay_gone()
        for other in world.relays():
            neighbour = other.membership.neighbours.get(self.node)
            if neighbour is not None and isinstance(neighbour.link, Link):
                if world.lines.open(other.place, self.place):
                    neighbour.link.end_soon(random.uniform(0.0, 0.02), "the connection broke")
                else:
                    neighbour.link.lose()
        for mine in self.membership.neighbours.values():
            if isinstance(mine.link, Link):
                mine.link.close()
        world.nodes[self.place].relay = None

    def drain(self) -> None:
        """As `Relay.stop` does: accept nothing new, finish what is under way, say goodbye."""
        self.core.router.draining = True
        for program in self.core.programs.by_number.values():
            text = "the relay is shutting down"
            program.sink.put((Op.DRAINING.value, program.last_request_id, text))
        self.core.peers.announce_draining()
        self._drain_look(self.now + GRACE)

    def _drain_look(self, ends: float) -> None:
        if self.busy and self.now < ends:
            self.world.schedule.after(_DRAIN_LOOK, self.do, self._drain_look, ends)
            return
        if self.busy:
            self.world.faults.may_lose = True  # calls are cut off
        self.joins.closed = True
        self.membership.send_close(self.now)
        self._farewell_look(self.now + FAREWELL)

    def _farewell_look(self, ends: float) -> None:
        if self.membership.neighbours and self.now < ends:
            self.world.schedule.after(_DRAIN_LOOK, self.do, self._farewell_look, ends)
            return
        for attachment in list(self.attachments):
            attachment.close("the relay is shutting down")
        for node in list(self.membership.neighbours):
            self.membership.end(node, "relay_stopping", self.now, CLOSE_LINGER)
        self.flusher.flush()
        self.world.trace.note(self.node, "has left")
        self.crash()

    @property
    def busy(self) -> bool:
        links = (n.link for n in self.membership.neighbours.values())
        return bool(
            len(self.core.router)
            or self.core.tunnels.reply_tunnels
            or any(each.outbox.size and each.read for each in self.attachments)
            or any(link.queued for link in links if isinstance(link, Link))
            or any(each.inbox.size for each in self.attachments)
            or self.batches.receiving
        )

    # The beat.

    def _tick(self) -> None:
        self.world.schedule.after(HEARTBEAT, self.do, self._tick)
        now = self.now
        self.membership.tick(now)
        self.joins.dial_due()
        if not self.core.router.settled and self._is_settled(now):
            self.core.settle(now)

    def _is_settled(self, now: float) -> bool:
        if now - self._started >= SETTLE:
            return True
        peers = self.core.peers.by_node
        linked = len(self.membership.neighbours)
        return (
            0 < linked == len(peers) == self.membership.synced
            and not self.joins.dial_targets.exploring
        )

    def _expire(self) -> None:
        self.world.schedule.after(EXPIRY, self.do, self._expire)
        self.core.router.expire(self.now)

    def end_admission(self, node: str) -> None:
        self.membership.end(node, "admission_expired", self.now)

    # Frames.

    def take(self, node: str, session: int, frame: bytes) -> None:
        """An admitted peer sent a frame."""
        drops = self.core.counters.drops
        dropped = drops["stale_session"]
        self.batches.receive(node, frame, self.now)
        latest = self._sessions.get(node, 0)
        if session < latest and drops["stale_session"] == dropped:
            text = f"{self.node} took a batch of {node}'s session {session} after {latest}"
            raise Violation("nothing from before a break comes after it", text, node, self.node)
        self._sessions[node] = max(session, latest)

    # What the core tells.

    def _dial(self, neighbour: Neighbour, session: int) -> Link:
        return Link(self.world, self, neighbour, session)

    def _lost(self, neighbour: Neighbour, reason: str) -> None:
        self.world.trace.note(self.node, "lost", neighbour.node, reason)
        if reason.startswith("protocol_error"):
            raise Violation("honest peers are understood", reason, self.node, neighbour.node)
        self.losses += 1
        self.joins.admissions.discard(neighbour.node)
        self.joins.dial_targets.lost(neighbour.node, self.now)

    def _known(self, node: str, address: str, port: int) -> None:
        if node != self.node and not self.membership.linked(node):
            self.joins.dial_targets.hint((address,), port, node, None, self.now)
