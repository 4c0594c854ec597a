"""A program's connection at its relay: real handlers and outbox, and a simulated socket."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

from arke.wire.limits import unpacker
from arke.wire.messages import Op
from arke.wire.outbox import Outbox
from arke.wire.reassembly import Reassembler
from arke_relay.attachments.native.broadcasts import NativeBroadcasts
from arke_relay.attachments.native.requests import NativeRequests
from arke_relay.attachments.native.tunnels import NativeTunnels
from arke_relay.core.endpoints import Message
from simulation.bounds import DEADLINE_TOLERANCE, MAX_BATCH, PROGRAM_OUTBOX, SOCKET_BUFFER
from simulation.requests import OUTCOMES, Request
from simulation.trace import Violation

if TYPE_CHECKING:
    from simulation.program import Program
    from simulation.relay import Relay


class Attachment:
    """The message sink of one program: `program` is simulated, `endpoint` belongs to the core."""

    def __init__(self, relay: Relay, program: Program) -> None:
        self.relay = relay
        self.program = program
        self.open = True
        self.program_reads = True
        self.outbox = Outbox(PROGRAM_OUTBOX, self._wake, self.flush)
        self.put_packed = self.outbox.put_packed
        self.put_in_flow = self.outbox.put_in_flow
        self.drop_flow = self.outbox.drop_flow
        self.inbox = Reassembler(relay.joins.max_message, 64 * 1024 * 1024)
        self._unpacker = unpacker()
        self._in_flight_bytes = 0
        self._not_yet_accepted: dict[int, Request] = {}
        core = relay.core
        endpoint = self.endpoint = core.programs.attach(program.key, self)
        self._handlers: dict[int, Callable[[Message, float], object]] = {
            **NativeRequests(endpoint, self.inbox, core.router, core.directory).handlers,
            **NativeBroadcasts(endpoint, self.inbox, core).handlers,
            **NativeTunnels(endpoint, core.tunnels).handlers,
            Op.CHUNK: lambda message, now: self.inbox.add_chunk(*message[1:]),
            Op.PING: lambda message, now: self._on_ping(message[1]),
            Op.REGISTER: lambda message, now: core.programs.register(
                endpoint, message[1], message[2], now
            ),
            Op.UNREGISTER: lambda message, now: core.programs.unregister(endpoint),
            Op.SUBSCRIBE: lambda message, now: core.programs.subscribe(endpoint, message[1]),
            Op.UNSUBSCRIBE: lambda message, now: core.programs.unsubscribe(endpoint, message[1]),
            Op.WATCH: lambda message, now: core.programs.watch(endpoint, message[1]),
            Op.UNWATCH: lambda message, now: core.programs.unwatch(endpoint, message[1]),
            Op.CLOSE: lambda message, now: self.close("closed_by_program"),
        }
        relay.attachments[self] = None

    # MessageSink.

    def put(self, message: Message) -> bool:
        if self.outbox.put(message):
            if message[0] in OUTCOMES:
                self._check_outcome(message)
            return True
        self.relay.world.trace.note(self.relay.node, "has no room for", self.program.key, message)
        if message[0] in OUTCOMES and message[1] in self.program.caller.open:
            self.program.caller.open[message[1]].outcome_dropped = True
        return False

    def put_body(self, message: Message, at: int, order: Hashable = None) -> bool:
        taken = self.outbox.put_body(message, at, order)
        if taken and message[0] == Op.REPLY:
            self._check_outcome(message)
        return taken

    def overrun(self) -> None:
        self.relay.world.coverage.seen["programs overrun"] += 1
        self.relay.world.faults.may_lose = True
        self.relay.world.schedule.after(0.0, self.relay.do, self.close, "stalled")

    def flush(self) -> None:
        outbox, program = self.outbox, self.program
        while outbox.size and self._in_flight_bytes < SOCKET_BUFFER:
            data = outbox.take(MAX_BATCH)
            self._in_flight_bytes += len(data)
            self.relay.world.schedule.after(program.delay, program.arrive, data)

    def on_read(self, size: int) -> None:
        """The program has read `size` bytes: send more."""
        self._in_flight_bytes -= size
        if self.outbox.size:
            self.relay.do(self.flush)

    def _wake(self) -> None:
        self.relay.flusher.dirty.append(self)

    # Messages from the program.

    def receive(self, data: bytes, sent: list[Request]) -> None:
        """Handle bytes of the program. `sent` are the requests that start in them or before."""
        if not self.open:
            return
        now = self.relay.now
        self.relay.world.trace.add_received(data)
        for request in sent:
            self._not_yet_accepted[request.number] = request
        self._unpacker.feed(data)
        for message in self._unpacker:
            self._handlers[message[0]](message, now)
            if not self.open:
                return
        for number in [n for n in self._not_yet_accepted if n in self.endpoint.requests]:
            self._accepted(self._not_yet_accepted.pop(number))

    def _on_ping(self, token: int) -> None:
        if not self.outbox.put_after_bodies((Op.PONG.value, token)):
            self.overrun()

    def close(self, reason: str) -> None:
        """Close the connection, or handle its end by the program."""
        if self.open:
            self.relay.world.trace.note(self.relay.node, "detaches", self.program.key, reason)
            self.open = False
            self.relay.attachments.pop(self, None)
            self.relay.core.programs.detach(self.endpoint, self.relay.now)
            # Queued messages are still sent, then the end of the connection.
            while self.outbox.size:
                data = self.outbox.take(MAX_BATCH)
                self.relay.world.schedule.after(self.program.delay, self.program.arrive, data)
            self.relay.world.schedule.after(
                self.program.delay, self.program.on_connection_closed, reason
            )

    def on_relay_crash(self) -> None:
        self.open = False
        self.relay.attachments.pop(self, None)
        delay = self.program.delay
        self.relay.world.schedule.after(
            delay, self.program.on_connection_closed, "the relay crashed"
        )

    # Deadlines.

    def _accepted(self, request: Request) -> None:
        world = self.relay.world
        request.deadline = world.schedule.time + request.timeout
        world.schedule.at(
            request.deadline + DEADLINE_TOLERANCE, self.relay.do, self._check_ended, request
        )

    def _check_outcome(self, message: Message) -> None:
        """Check the outcome of a request when it is queued for the program."""
        op, number = message[:2]
        request = self.program.caller.open.get(number)
        if request is None:
            return  # the program has cancelled it, or the program will report a second outcome
        request.check_outcome(op, message, self)

    def _check_ended(self, request: Request) -> None:
        routed_request = self.endpoint.requests.get(request.number)
        if routed_request is None or not self.open:
            return
        world = self.relay.world
        if world.schedule.time < self.relay.resumed + DEADLINE_TOLERANCE:
            world.schedule.at(
                self.relay.resumed + DEADLINE_TOLERANCE, self.relay.do, self._check_ended, request
            )
            return
        late = world.schedule.time - request.deadline
        text = f"{request.key} is open {late:.3f} s after its deadline"
        raise Violation("a request ends by its deadline", text, request.key, self.relay.node)

    def __hash__(self) -> int:
        return id(self)

    def later_than(self, seconds: float) -> bool:
        """Whether the relay has run for longer than the tolerance since a time of the world."""
        return (
            self.relay.world.schedule.time > max(seconds, self.relay.resumed) + DEADLINE_TOLERANCE
        )
