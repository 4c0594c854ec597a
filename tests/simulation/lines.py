"""Cables between nodes, and the links that relays have over them.

A line is one direction between two nodes. While it is stalled, what is on it waits, as in a
kernel's buffers; when it fails, what is on it is lost, and with it every connection over it: TCP
never delivers what comes behind a gap. When a link closes, what waits may still arrive, even after
the frames of the next link.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from msgpack import Packer

from arke.wire.outbox import Outbox
from arke_relay.core.membership import Neighbour
from simulation.bounds import BATCH, IN_FLIGHT, LINK_OUTBOX

if TYPE_CHECKING:
    from simulation.relay import Relay
    from simulation.world import World

_RETRY = 0.1
"""Seconds between two attempts to connect."""


class Line:
    """One direction between two nodes."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.slow = 0.0
        """Seconds that messages take longer for now, at most."""
        self.cuts = 0
        self.links: dict[Link, None] = {}


class Lines:
    """All of them, by the numbers of the nodes at their ends."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._lines: dict[tuple[int, int], Line] = {}

    def __getitem__(self, ends: tuple[int, int]) -> Line:
        line = self._lines.get(ends)
        if line is None:
            line = self._lines[ends] = Line(self._world.random.uniform(0.0002, 0.005))
        return line

    def delay(self, line: Line) -> float:
        random = self._world.random.random
        return line.delay * (0.5 + random()) + line.slow * random()

    def open(self, one: int, other: int) -> bool:
        """Whether messages pass both ways."""
        return not (self[one, other].cuts or self[other, one].cuts)

    def cut(self, sender: int, receiver: int) -> None:
        self[sender, receiver].cuts += 1

    def fail(self, sender: int, receiver: int) -> None:
        """Cut it, and lose what is in flight."""
        line = self[sender, receiver]
        line.cuts += 1
        for link in list(line.links):
            link.lose()

    def heal(self, sender: int, receiver: int) -> None:
        line = self[sender, receiver]
        line.cuts -= 1
        if not line.cuts:
            for link in list(line.links):
                link.healed()


class Link:
    """One session of a relay toward a peer, as PeerLink is with sockets."""

    def __init__(self, world: World, owner: Relay, neighbour: Neighbour, session: int) -> None:
        self._world = world
        self._owner = owner
        self.node = neighbour.node
        self._place = int(neighbour.address)
        self._session = session
        self._receiver: Relay | None = None
        self.line = world.lines[owner.place, self._place]
        self.outbox = Outbox(LINK_OUTBOX, self._wake, self.flush, neighbour.max_message)
        self.put = self.outbox.put
        self.put_body = self.outbox.put_body
        self.put_packed = self.outbox.put_packed
        self.put_in_flow = self.outbox.put_in_flow
        self.drop_flow = self.outbox.drop_flow
        self._pack = Packer().pack
        self._hearing = 0
        self._open = True
        self._connected = False
        self._failed = False
        self._blocked = False
        self._unsent = b""
        self._sent = False
        self._unread = 0
        self._frames: deque[bytes] = deque()
        self._last_due = 0.0
        self._overdue = 0
        self._held = False
        # The welcome of a join left first, and a handshake goes to and fro.
        handshake = sum(world.lines.delay(self.line) for _ in range(4))
        world.schedule.after(handshake, self._connect)

    @property
    def queued(self) -> int:
        return self.outbox.size + len(self._unsent)

    @property
    def in_flight(self) -> int:
        """Frames that are on their way."""
        return len(self._frames)

    # What the core asks for.

    def flush(self) -> None:
        if self._connected and self._open:
            while self.outbox and not self._blocked:
                self._send(self.outbox.take(BATCH))

    def acknowledge(self, session: int) -> None:
        self._hearing = session
        if self._connected and not self._blocked:
            self._send(b"")

    def heartbeat(self) -> None:
        if not self._sent and self._connected and not self._blocked:
            self._send(b"")
        self._sent = False

    def overrun(self) -> None:
        self._world.tally.seen["links overrun"] += 1
        self._world.faults.may_lose = True
        self.end_soon(0.0, "send_buffer_full")

    def close(self, linger: float = 0.0) -> None:
        if not self._open:
            return
        self._open = False
        random = self._world.random
        if not linger:
            # Frames that the kernel did not have yet are gone; the others are on their way.
            if random.random() < 0.5:
                for _ in range(random.randint(0, len(self._frames))):
                    self._frames.pop()
            if random.random() < 0.7:
                self._held = True
                self._world.schedule.after(random.uniform(0.0, 0.8), self.healed)
        self._forget_if_done()

    # What befalls it.

    def lose(self) -> None:
        """What is in flight is lost, and nothing that is sent will arrive."""
        self._frames.clear()
        self._failed = True
        self._forget_if_done()

    def healed(self) -> None:
        """What waited goes on; who is at the end of a broken connection learns of it."""
        self._held = False
        overdue, self._overdue = self._overdue, 0
        for _ in range(overdue):
            self._world.schedule.after(self.line.delay, self._arrive)
        if self._failed:
            self.end_soon(self._world.random.uniform(0.0, 0.5), "the connection broke")

    def end_soon(self, seconds: float, reason: str) -> None:
        self._world.schedule.after(seconds, self._owner.do, self._end, reason)

    # Inside.

    def _wake(self) -> None:
        self._owner.flusher.dirty.append(self)

    def _end(self, reason: str) -> None:
        if self._open:
            owner = self._owner
            owner.membership.link_broken(self.node, self._session, reason, owner.now)

    def _connect(self) -> None:
        """The handshake, which needs both directions and an admission."""
        if not self._open or self._failed:
            return
        world, owner = self._world, self._owner
        receiver = world.nodes[self._place].relay
        if owner.paused or not world.lines.open(owner.place, self._place):
            world.schedule.after(_RETRY, self._connect)
        elif receiver is None or receiver.node != self.node:
            self.end_soon(0.0, "it cannot be reached")
        elif receiver.paused:
            world.schedule.after(_RETRY, self._connect)
        elif owner.node not in receiver.joins.admissions:
            self.end_soon(0.0, "it does not admit this relay")
        else:
            self._receiver = receiver
            self.line.links[self] = None
            owner.do(self._connected_now)

    def _connected_now(self) -> None:
        if self._open:
            self._connected = True
            self._send(b"")
            self.flush()

    def _send(self, messages: bytes) -> None:
        if self._unread >= IN_FLIGHT:
            self._unsent = messages
            self._blocked = True
            return
        header = self._pack((self._session, int(self._owner.now * 1000), self._hearing))
        self._sent = True
        self._unread += 1
        if self._failed:
            return
        schedule = self._world.schedule
        due = schedule.time + self._world.lines.delay(self.line)
        self._last_due = due = max(due, self._last_due)
        self._frames.append(header + messages)
        schedule.at(due, self._arrive)

    def _arrive(self) -> None:
        if self._held or self.line.cuts:
            self._overdue += 1
        elif self._frames:
            receiver = self._receiver
            assert receiver
            receiver.do(self._read, receiver, self._frames.popleft())
            self._forget_if_done()

    def _read(self, receiver: Relay, frame: bytes) -> None:
        self._unread -= 1
        self._world.trace.arrived(frame)
        if self._owner.node in receiver.joins.admissions:
            receiver.take(self._owner.node, self._session, frame)
        if self._blocked and self._open:
            delay = self._world.lines.delay(self.line)
            self._world.schedule.after(delay, self._owner.do, self._writable)

    def _writable(self) -> None:
        if self._blocked and self._open:
            self._blocked = False
            messages, self._unsent = self._unsent, b""
            self._send(messages)
            self.flush()

    def _forget_if_done(self) -> None:
        if not self._open and not self._frames:
            self.line.links.pop(self, None)
