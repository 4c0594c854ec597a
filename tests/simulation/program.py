"""A program and its connection: it sends, reads, stalls, detaches and crashes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from arke.wire.limits import MAX_MESSAGE, unpacker
from arke.wire.messages import Op
from arke.wire.outbox import Outbox
from arke.wire.reassembly import Reassembler
from simulation.attachment import Attachment
from simulation.bounds import MAX_BATCH, MAX_BODY
from simulation.caller import Caller
from simulation.fanout import Fanout
from simulation.member import Member
from simulation.requests import Request
from simulation.trace import Violation
from simulation.tunnels import Tunnels

if TYPE_CHECKING:
    from simulation.relay import Relay
    from simulation.world import World

_LEAVE_TIME = 1.0
"""Seconds for which a detaching program waits for its handlers."""


class Program:
    """A program that is attached to one relay until it ends."""

    def __init__(self, world: World, relay: Relay) -> None:
        self.world = world
        self.key = world.name("p")
        self.node = relay.node
        self.delay = world.random.choice((0.0001, 0.0005, 0.001, 0.02))
        self.detached = False
        self.may_send = True
        """False once its relay drains or the program detaches."""
        self.stalled = False
        self.cluster: str | None = None
        """The cluster of which it is a member."""
        self.metadata = {"key": self.key}
        self.last_cluster: str | None = None
        """Its cluster, also after it has left: requests that it has received belong to it."""
        self.largest = min(MAX_BODY, relay.joins.max_message)
        """Bytes of the largest body that its relay accepts."""
        self.outbox = Outbox(64 * 1024 * 1024)
        self.inbox = Reassembler(MAX_MESSAGE, 64 * 1024 * 1024)
        self._unpacker = unpacker()
        self._unread: list[bytes] = []
        self._later: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self.on_left: Callable[[], object] | None = None
        """Called when the relay has confirmed that the program left its cluster."""
        self.sent: list[Request] = []
        """Requests in the outbox that are not sent yet."""
        self.attachment = Attachment(relay, self)
        self.member_id = self.attachment.endpoint.sender
        self.caller = Caller(self)
        self.member = Member(self)
        self.fanout = Fanout(self)
        self.tunnels = Tunnels(self)
        self._handlers: dict[int, Callable[..., object]] = {
            **self.caller.handlers,
            **self.member.handlers,
            **self.fanout.handlers,
            **self.tunnels.handlers,
            Op.CHUNK: self.inbox.add_chunk,
            Op.PONG: self._on_pong,
            Op.NODE_ADDRESS: lambda address: None,
        }
        world.programs[self] = None
        world.senders[self.key] = self.member_id
        world.trace.note(self.key, "attaches at", self.node, "as", self.member_id)

    # Actions.

    def do(self, act: Callable[..., object], *arguments: Any) -> None:
        """Run a callback and send what it queued: now, or after a stall."""
        if self.detached:
            return
        if self.stalled:
            self._later.append((act, arguments))
            return
        act(*arguments)
        self.flush()

    def after(self, seconds: float, act: Callable[..., object], *arguments: Any) -> None:
        self.world.schedule.after(seconds, self.do, act, *arguments)

    def join_body(self, body: object) -> bytes:
        """Return the body of a message: inside the message, or from the chunks before it."""
        if type(body) is bytes:
            return body
        joined = self.inbox.take_body(body)
        if joined is None:
            raise Violation("valid bodies are never dropped by the inbox", str(body), self.key)
        return bytes(joined)

    def flush(self) -> None:
        attachment, schedule = self.attachment, self.world.schedule
        while self.outbox.size:
            data = self.outbox.take(MAX_BATCH)
            sent, self.sent = self.sent, []
            schedule.after(self.delay, attachment.relay.do, attachment.receive, data, sent)

    def serve(self, cluster: str) -> None:
        self.cluster = self.last_cluster = cluster
        self.world.trace.note(self.key, "serves", cluster)
        self.world.add_recent_member(self.member_id)
        self.outbox.put((Op.REGISTER.value, cluster, self.metadata))

    def stop_serving(self, then: Callable[[], object]) -> None:
        """Leave the cluster. `then` is called when the relay delivers no more requests."""
        self.cluster = None
        self.world.trace.note(self.key, "leaves its cluster")
        self.outbox.put((Op.UNREGISTER.value,))
        self.outbox.put((Op.PING.value, 0))
        self.on_left = then

    def leave(self) -> None:
        """Detach: leave the cluster, finish the running handlers, close."""
        self.may_send = False
        if self.cluster is not None:
            self.stop_serving(lambda: None)
        self._close_when_idle(_LEAVE_TIME)

    def _close_when_idle(self, patience: float) -> None:
        if self.on_left is not None or (self.member.busy and patience > 0):
            self.after(0.05, self._close_when_idle, patience - 0.05)
        else:
            self.member.stop()
            self._close()

    def _close(self) -> None:
        self.outbox.put((Op.CLOSE.value, "closed_by_program"))
        self.flush()
        self._end("closed_by_program")

    def crash(self) -> None:
        """End the process; its relay sees the end of the connection."""
        if not self.detached:
            relay, attachment = self.attachment.relay, self.attachment
            self.world.schedule.after(self.delay, relay.do, attachment.close, "program_crashed")
            self._end("program_crashed")

    def stall(self) -> None:
        self.stalled = True
        self.attachment.program_reads = False

    def resume(self) -> None:
        """End a stall: read what has arrived, and run the delayed callbacks."""
        if not self.stalled:
            return
        self.stalled, self.attachment.program_reads = False, True
        unread, self._unread = self._unread, []
        later, self._later = self._later, []
        for data in unread:
            self.arrive(data)
        for act, arguments in later:
            self.do(act, *arguments)

    # Messages from its relay.

    def arrive(self, data: bytes) -> None:
        if self.detached:
            return
        if self.stalled:
            self._unread.append(data)
            return
        self.world.trace.add_received(data)
        self._unpacker.feed(data)
        for message in self._unpacker:
            self._handlers[message[0]](*message[1:])
        self.flush()
        self.attachment.on_read(len(data))

    def on_connection_closed(self, reason: str) -> None:
        """The relay has closed the connection, or has stopped."""
        if self.stalled:
            self.resume()
        if not self.detached:
            self._end(reason)

    def _on_pong(self, token: int) -> None:
        then, self.on_left = self.on_left, None
        if then is not None:
            then()

    def _end(self, reason: str) -> None:
        self.world.trace.note(self.key, "has detached:", reason)
        self.detached = True
        self.cluster = None
        self.world.programs.pop(self)
        self.caller.on_detached(reason)
        self.tunnels.on_detached(reason)
