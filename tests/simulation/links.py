"""Cables between nodes, and the links of relays over them.

A cable is one direction between two nodes. While it is cut, frames wait, as in a kernel's buffers.
When it fails, the frames in flight are lost, and every connection over it breaks: TCP delivers
nothing behind a gap. After a link closes, its waiting frames may still arrive, even behind the
first frames of the next link.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from msgpack import Packer

from arke.wire.outbox import Outbox
from arke_relay.core.membership import Neighbour
from simulation.bounds import LINK_OUTBOX, MAX_BATCH, MAX_FRAMES_IN_FLIGHT

if TYPE_CHECKING:
    from simulation.relay import Relay
    from simulation.world import World

_RETRY = 0.1
"""Seconds between two attempts to connect."""


class Cable:
    """One direction between two nodes."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.slow = 0.0
        """Additional delay of messages in seconds, at most."""
        self.cuts = 0
        self.links: dict[Link, None] = {}


class Cables:
    """All cables, by the numbers of the nodes at their ends."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._cables: dict[tuple[int, int], Cable] = {}

    def __getitem__(self, ends: tuple[int, int]) -> Cable:
        line = self._cables.get(ends)
        if line is None:
            line = self._cables[ends] = Cable(self._world.random.uniform(0.0002, 0.005))
        return line

    def delay(self, line: Cable) -> float:
        random = self._world.random.random
        return line.delay * (0.5 + random()) + line.slow * random()

    def open(self, one: int, other: int) -> bool:
        """Whether messages pass in both directions."""
        return not (self[one, other].cuts or self[other, one].cuts)

    def cut(self, sender: int, receiver: int) -> None:
        self[sender, receiver].cuts += 1

    def fail(self, sender: int, receiver: int) -> None:
        """Cut the cable and lose the frames in flight."""
        line = self[sender, receiver]
        line.cuts += 1
        for link in list(line.links):
            link.lose()

    def heal(self, sender: int, receiver: int) -> None:
        line = self[sender, receiver]
        line.cuts -= 1
        if not line.cuts:
            for link in list(line.links):
                link.restored()


class Link:
    """One session of a relay toward a peer, as PeerLink is with sockets."""

    def __init__(self, world: World, owner: Relay, neighbour: Neighbour, session: int) -> None:
        self._world = world
        self._owner = owner
        self.node = neighbour.node
        self._place = int(neighbour.address)
        self._session = session
        self._receiver: Relay | None = None
        self.cable = world.cables[owner.place, self._place]
        self.outbox = Outbox(LINK_OUTBOX, self._wake, self.flush, neighbour.max_message)
        self.put = self.outbox.put
        self.put_body = self.outbox.put_body
        self.put_packed = self.outbox.put_packed
        self.put_in_flow = self.outbox.put_in_flow
        self.drop_flow = self.outbox.drop_flow
        self._pack = Packer().pack
        self._acknowledged_session = 0
        self._open = True
        self._connected = False
        self._failed = False
        self._blocked = False
        self._unsent = b""
        self._sent = False
        self._unread = 0
        self._frames: deque[bytes] = deque()
        self._last_due = 0.0
        self._delayed_frames = 0
        self._stalled = False
        # The reply of the join was sent before, and the handshake takes two round trips.
        handshake = sum(world.cables.delay(self.cable) for _ in range(4))
        world.schedule.after(handshake, self._connect)

    @property
    def queued(self) -> int:
        return self.outbox.size + len(self._unsent)

    @property
    def in_flight(self) -> int:
        """Number of frames that were sent and have not arrived."""
        return len(self._frames)

    # Called by the core.

    def flush(self) -> None:
        if self._connected and self._open:
            while self.outbox and not self._blocked:
                self._send(self.outbox.take(MAX_BATCH))

    def acknowledge(self, session: int) -> None:
        self._acknowledged_session = session
        if self._connected and not self._blocked:
            self._send(b"")

    def heartbeat(self) -> None:
        if not self._sent and self._connected and not self._blocked:
            self._send(b"")
        self._sent = False

    def overrun(self) -> None:
        self._world.coverage.seen["links overrun"] += 1
        self._world.faults.may_lose = True
        self.end_soon(0.0, "send_buffer_full")

    def close(self, linger: float = 0.0) -> None:
        if not self._open:
            return
        self._open = False
        random = self._world.random
        if not linger:
            # Frames that the kernel did not have yet are lost; the others may arrive late.
            if random.random() < 0.5:
                for _ in range(random.randint(0, len(self._frames))):
                    self._frames.pop()
            if random.random() < 0.7:
                self._stalled = True
                self._world.schedule.after(random.uniform(0.0, 0.8), self.restored)
        self._forget_if_done()

    # Faults.

    def lose(self) -> None:
        """Lose the frames in flight, and everything that is sent later."""
        self._frames.clear()
        self._failed = True
        self._forget_if_done()

    def restored(self) -> None:
        """Deliver the waiting frames; report the connection as broken if it failed."""
        self._stalled = False
        overdue, self._delayed_frames = self._delayed_frames, 0
        for _ in range(overdue):
            self._world.schedule.after(self.cable.delay, self._arrive)
        if self._failed:
            self.end_soon(self._world.random.uniform(0.0, 0.5), "the connection broke")

    def end_soon(self, seconds: float, reason: str) -> None:
        self._world.schedule.after(seconds, self._owner.do, self._end, reason)

    # Connection and frames.

    def _wake(self) -> None:
        self._owner.flusher.dirty.append(self)

    def _end(self, reason: str) -> None:
        if self._open:
            owner = self._owner
            owner.membership.link_broken(self.node, self._session, reason, owner.now)

    def _connect(self) -> None:
        """Connect, which needs both directions and an admission; retry until then."""
        if not self._open or self._failed:
            return
        world, owner = self._world, self._owner
        receiver = world.nodes[self._place].relay
        if owner.paused or not world.cables.open(owner.place, self._place):
            world.schedule.after(_RETRY, self._connect)
        elif receiver is None or receiver.node != self.node:
            self.end_soon(0.0, "unreachable")
        elif receiver.paused:
            world.schedule.after(_RETRY, self._connect)
        elif owner.node not in receiver.joins.admissions:
            self.end_soon(0.0, "not_admitted")
        else:
            self._receiver = receiver
            self.cable.links[self] = None
            owner.do(self._connected_now)

    def _connected_now(self) -> None:
        if self._open:
            self._connected = True
            self._send(b"")
            self.flush()

    def _send(self, messages: bytes) -> None:
        if self._unread >= MAX_FRAMES_IN_FLIGHT:
            self._unsent = messages
            self._blocked = True
            return
        header = self._pack(
            (self._session, int(self._owner.now * 1000), self._acknowledged_session)
        )
        self._sent = True
        self._unread += 1
        if self._failed:
            return
        schedule = self._world.schedule
        due = schedule.time + self._world.cables.delay(self.cable)
        self._last_due = due = max(due, self._last_due)
        self._frames.append(header + messages)
        schedule.at(due, self._arrive)

    def _arrive(self) -> None:
        if self._stalled or self.cable.cuts:
            self._delayed_frames += 1
        elif self._frames:
            receiver = self._receiver
            assert receiver
            receiver.do(self._read, receiver, self._frames.popleft())
            self._forget_if_done()

    def _read(self, receiver: Relay, frame: bytes) -> None:
        self._unread -= 1
        self._world.trace.add_received(frame)
        if self._owner.node in receiver.joins.admissions:
            receiver.receive(self._owner.node, self._session, frame)
        if self._blocked and self._open:
            delay = self._world.cables.delay(self.cable)
            self._world.schedule.after(delay, self._owner.do, self._writable)

    def _writable(self) -> None:
        if self._blocked and self._open:
            self._blocked = False
            messages, self._unsent = self._unsent, b""
            self._send(messages)
            self.flush()

    def _forget_if_done(self) -> None:
        if not self._open and not self._frames:
            self.cable.links.pop(self, None)
