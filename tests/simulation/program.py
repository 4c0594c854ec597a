"""A program: what it sends and reads; what it makes of that is its parts' business."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from arke.wire.limits import MAX_MESSAGE, unpacker
from arke.wire.messages import Op
from arke.wire.outbox import Outbox
from arke.wire.reassembly import Reassembler
from simulation.attachment import Attachment
from simulation.bounds import BATCH, LARGEST
from simulation.caller import Caller
from simulation.listener import Listener
from simulation.member import Member
from simulation.requests import Request
from simulation.trace import Violation
from simulation.tunnels import Tunnels

if TYPE_CHECKING:
    from simulation.relay import Relay
    from simulation.world import World

_PATIENCE = 1.0
"""Seconds that a program which leaves waits for its handlers."""


class Program:
    """Attached to one relay for all of its life."""

    def __init__(self, world: World, relay: Relay) -> None:
        self.world = world
        self.key = world.name("p")
        self.node = relay.node
        self.delay = world.random.choice((0.0001, 0.0005, 0.001, 0.02))
        self.gone = False
        self.asks = True
        """Neither its relay has said goodbye nor does it leave."""
        self.stalled = False
        self.cluster: str | None = None
        """What it serves."""
        self.says = {"key": self.key}
        self.cluster_of_old: str | None = None
        """What it served last: what was handed over before it left is still its own."""
        self.largest = min(LARGEST, relay.joins.max_message)
        """Octets of the largest body that its relay takes of it."""
        self.outbox = Outbox(64 * 1024 * 1024)
        self.inbox = Reassembler(MAX_MESSAGE, 64 * 1024 * 1024)
        self._unpacker = unpacker()
        self._unread: list[bytes] = []
        self._later: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self.settling: Callable[[], object] | None = None
        """What is to be done once the relay has heard that it serves no more."""
        self.sent: list[Request] = []
        """Requests that leave with the next octets."""
        self.attachment = Attachment(relay, self)
        self.member_id = self.attachment.endpoint.sender
        self.caller = Caller(self)
        self.member = Member(self)
        self.listener = Listener(self)
        self.tunnels = Tunnels(self)
        self._handlers: dict[int, Callable[..., object]] = {
            **self.caller.handlers,
            **self.member.handlers,
            **self.listener.handlers,
            **self.tunnels.handlers,
            Op.CHUNK: self.inbox.add_chunk,
            Op.PONG: self._on_pong,
            Op.NODE_ADDRESS: lambda address: None,
        }
        world.programs[self] = None
        world.senders[self.key] = self.member_id
        world.trace.note(self.key, "attaches at", self.node, "as", self.member_id)

    # What it does.

    def do(self, act: Callable[..., object], *arguments: Any) -> None:
        """Something is due: now, or when it runs again; and what it has to say leaves."""
        if self.gone:
            return
        if self.stalled:
            self._later.append((act, arguments))
            return
        act(*arguments)
        self.flush()

    def after(self, seconds: float, act: Callable[..., object], *arguments: Any) -> None:
        self.world.schedule.after(seconds, self.do, act, *arguments)

    def whole(self, body: object) -> bytes:
        """A body that stands in a message, or came before it in chunks."""
        if type(body) is bytes:
            return body
        joined = self.inbox.take_body(body)
        if joined is None:
            raise Violation("honest bodies find room", str(body), self.key)
        return bytes(joined)

    def flush(self) -> None:
        attachment, schedule = self.attachment, self.world.schedule
        while self.outbox.size:
            data = self.outbox.take(BATCH)
            sent, self.sent = self.sent, []
            schedule.after(self.delay, attachment.relay.do, attachment.understand, data, sent)

    def serve(self, cluster: str) -> None:
        self.cluster = self.cluster_of_old = cluster
        self.world.trace.note(self.key, "serves", cluster)
        self.world.member_came(self.member_id)
        self.outbox.put((Op.REGISTER.value, cluster, self.says))

    def stop_serving(self, then: Callable[[], object]) -> None:
        """Leave the cluster; `then` is when the relay hands over nothing more."""
        self.cluster = None
        self.world.trace.note(self.key, "leaves its cluster")
        self.outbox.put((Op.UNREGISTER.value,))
        self.outbox.put((Op.PING.value, 0))
        self.settling = then

    def leave(self) -> None:
        """Leave the cluster, answer what was handed over, close."""
        self.asks = False
        if self.cluster is not None:
            self.stop_serving(lambda: None)
        self._close_when_idle(_PATIENCE)

    def _close_when_idle(self, patience: float) -> None:
        if self.settling is not None or (self.member.busy and patience > 0):
            self.after(0.05, self._close_when_idle, patience - 0.05)
        else:
            self.member.stop()
            self._close()

    def _close(self) -> None:
        self.outbox.put((Op.CLOSE.value, "closed_by_program"))
        self.flush()
        self._end("closed_by_program")

    def crash(self) -> None:
        """The process is gone; its relay sees the connection end."""
        if not self.gone:
            relay, attachment = self.attachment.relay, self.attachment
            self.world.schedule.after(self.delay, relay.do, attachment.close, "it crashed")
            self._end("it crashed")

    def stall(self) -> None:
        self.stalled = True
        self.attachment.read = False

    def go_on(self) -> None:
        """It reads again, and does what it would have done meanwhile."""
        if not self.stalled:
            return
        self.stalled, self.attachment.read = False, True
        unread, self._unread = self._unread, []
        later, self._later = self._later, []
        for data in unread:
            self.arrive(data)
        for act, arguments in later:
            self.do(act, *arguments)

    # What its relay says.

    def arrive(self, data: bytes) -> None:
        if self.gone:
            return
        if self.stalled:
            self._unread.append(data)
            return
        self.world.trace.arrived(data)
        self._unpacker.feed(data)
        for message in self._unpacker:
            self._handlers[message[0]](*message[1:])
        self.flush()
        self.attachment.taken(len(data))

    def hear_end(self, reason: str) -> None:
        """The relay has closed the connection, or is gone."""
        if self.stalled:
            self.go_on()
        if not self.gone:
            self._end(reason)

    def _on_pong(self, token: int) -> None:
        then, self.settling = self.settling, None
        if then is not None:
            then()

    def _end(self, reason: str) -> None:
        self.world.trace.note(self.key, "is gone:", reason)
        self.gone = True
        self.cluster = None
        self.world.programs.pop(self)
        self.caller.gone(reason)
        self.tunnels.gone(reason)
