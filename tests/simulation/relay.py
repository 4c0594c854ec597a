"""One relay: the real core and peer codec, with simulated cables, joins and clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from arke.wire.messages import Op
from arke_relay.core.membership import (
    CLOSE_LINGER,
    HEARTBEAT,
    LossReason,
    Membership,
    Neighbour,
)
from arke_relay.core.message_core import MessageCore
from arke_relay.flusher import Flusher
from arke_relay.peers.batch_reader import BatchReader
from simulation.attachment import Attachment
from simulation.bounds import CLOSE_TIME, DRAIN_TIME, EXPIRY_INTERVAL, SETTLE_TIME
from simulation.joins import Joins
from simulation.links import Link
from simulation.trace import Violation

if TYPE_CHECKING:
    from simulation.world import World

_DRAIN_POLL = 0.01


class Relay:
    """A relay that runs from `start` to `crash` or the end of `drain`.

    `place` is the number of its node.
    """

    def __init__(self, world: World, place: int, incarnation: int) -> None:
        self.world = world
        self.place = place
        self.node = f"n{place}.{incarnation}"
        self.up = True
        self.paused = False
        self.resumed = 0.0
        """The end of its last pause, in the world's seconds."""
        self._backlog: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self._clock_began = world.random.uniform(0, 1e6)
        self._started = self.now
        self.attachments: dict[Attachment, None] = {}
        self.losses = 0
        self._sessions: dict[str, int] = {}
        """The latest session of each peer from which a frame arrived."""
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

    # Start, pause and stop.

    def start(self) -> None:
        random = self.world.random
        self.world.schedule.after(random.uniform(0, HEARTBEAT), self.do, self._tick)
        self.world.schedule.after(random.uniform(0, EXPIRY_INTERVAL), self.do, self._expire)

    def do(self, act: Callable[..., object], *arguments: Any) -> None:
        """Run a callback on the relay's event loop: now, or after a pause."""
        if self.paused:
            self._backlog.append((act, arguments))
        elif self.up:
            act(*arguments)
            self.flusher.flush()
            self.world.on_relay_step(self)

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        """Run the callbacks of the pause: in order, or timers first."""
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
        """End the process; its kernel closes all connections."""
        self.up = self.paused = False
        world, random = self.world, self.world.random
        for attachment in list(self.attachments):
            attachment.on_relay_crash()
        for other in world.relays():
            neighbour = other.membership.neighbours.get(self.node)
            if neighbour is not None and isinstance(neighbour.link, Link):
                if world.cables.open(other.place, self.place):
                    neighbour.link.end_soon(random.uniform(0.0, 0.02), "the connection broke")
                else:
                    neighbour.link.lose()
        for mine in self.membership.neighbours.values():
            if isinstance(mine.link, Link):
                mine.link.close()
        world.nodes[self.place].relay = None

    def drain(self) -> None:
        """Do what the real `Relay.stop` does: accept nothing new, finish, send CLOSE."""
        self.core.router.draining = True
        for program in self.core.programs.by_number.values():
            text = "the relay is shutting down"
            program.sink.put((Op.DRAINING.value, program.last_request_id, text))
        self.core.peers.announce_draining()
        self._poll_drain(self.now + DRAIN_TIME)

    def _poll_drain(self, ends: float) -> None:
        if self.busy and self.now < ends:
            self.world.schedule.after(_DRAIN_POLL, self.do, self._poll_drain, ends)
            return
        if self.busy:
            self.world.faults.may_lose = True  # unfinished requests are lost
        self.joins.closed = True
        self.membership.send_close(self.now)
        self._poll_close(self.now + CLOSE_TIME)

    def _poll_close(self, ends: float) -> None:
        if self.membership.neighbours and self.now < ends:
            self.world.schedule.after(_DRAIN_POLL, self.do, self._poll_close, ends)
            return
        for attachment in list(self.attachments):
            attachment.close("the relay is shutting down")
        for node in list(self.membership.neighbours):
            self.membership.end(node, LossReason.RELAY_STOPPING, self.now, CLOSE_LINGER)
        self.flusher.flush()
        self.world.trace.note(self.node, "has drained")
        self.crash()

    @property
    def busy(self) -> bool:
        links = (n.link for n in self.membership.neighbours.values())
        return bool(
            len(self.core.router)
            or self.core.tunnels.reply_tunnels
            or any(each.outbox.size and each.program_reads for each in self.attachments)
            or any(link.queued for link in links if isinstance(link, Link))
            or any(each.inbox.size for each in self.attachments)
            or self.batches.receiving
        )

    # Timers.

    def _tick(self) -> None:
        self.world.schedule.after(HEARTBEAT, self.do, self._tick)
        now = self.now
        self.membership.tick(now)
        self.joins.dial_due()
        if not self.core.router.settled and self._is_settled(now):
            self.core.settle(now)

    def _is_settled(self, now: float) -> bool:
        if now - self._started >= SETTLE_TIME:
            return True
        peers = self.core.peers.by_node
        linked = len(self.membership.neighbours)
        return (
            0 < linked == len(peers) == self.membership.synced
            and not self.joins.dial_targets.exploring
        )

    def _expire(self) -> None:
        self.world.schedule.after(EXPIRY_INTERVAL, self.do, self._expire)
        self.core.router.expire(self.now)

    def end_admission(self, node: str) -> None:
        self.membership.end(node, LossReason.ADMISSION_EXPIRED, self.now)

    # Frames.

    def receive(self, node: str, session: int, frame: bytes) -> None:
        """Handle a frame of an admitted peer."""
        drops = self.core.counters.drops
        dropped = drops["stale_session"]
        self.batches.receive(node, frame, self.now)
        latest = self._sessions.get(node, 0)
        if session < latest and drops["stale_session"] == dropped:
            text = f"{self.node} accepted a batch of {node}'s session {session} after {latest}"
            raise Violation("frames of an earlier session are dropped", text, node, self.node)
        self._sessions[node] = max(session, latest)

    # Callbacks of the core.

    def _dial(self, neighbour: Neighbour, session: int) -> Link:
        return Link(self.world, self, neighbour, session)

    def _lost(self, neighbour: Neighbour, reason: str, detail: str) -> None:
        self.world.trace.note(self.node, "lost", neighbour.node, reason, detail)
        if reason == LossReason.PROTOCOL_ERROR:
            raise Violation("peers send no invalid messages", detail, self.node, neighbour.node)
        self.losses += 1
        self.joins.admissions.discard(neighbour.node)
        self.joins.dial_targets.lost(neighbour.node, self.now)

    def _known(self, node: str, address: str, port: int) -> None:
        if node != self.node and not self.membership.linked(node):
            self.joins.dial_targets.hint((address,), port, node, None, self.now)
