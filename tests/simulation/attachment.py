"""A program's connection as its relay has it: the real handlers and outbox, a pipe for a socket."""

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
from simulation.bounds import BATCH, ON_TIME, PIPE, PROGRAM_OUTBOX
from simulation.requests import OUTCOMES, Request
from simulation.trace import Violation

if TYPE_CHECKING:
    from simulation.program import Program
    from simulation.relay import Relay


class Attachment:
    """The sink of one program: `program` is the simulated one, `endpoint` the core's."""

    def __init__(self, relay: Relay, program: Program) -> None:
        self.relay = relay
        self.program = program
        self.open = True
        self.read = True
        """The program reads what it is sent."""
        self.outbox = Outbox(PROGRAM_OUTBOX, self._wake, self.flush)
        self.put_packed = self.outbox.put_packed
        self.put_in_flow = self.outbox.put_in_flow
        self.drop_flow = self.outbox.drop_flow
        self.inbox = Reassembler(relay.joins.max_message, 64 * 1024 * 1024)
        self._unpacker = unpacker()
        self._under_way = 0
        self._unaccepted: dict[int, Request] = {}
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
                self._ended(message)
            return True
        self.relay.world.trace.note(self.relay.node, "has no room for", self.program.key, message)
        if message[0] in OUTCOMES and message[1] in self.program.caller.open:
            self.program.caller.open[message[1]].no_room = True
        return False

    def put_body(self, message: Message, at: int, order: Hashable = None) -> bool:
        taken = self.outbox.put_body(message, at, order)
        if taken and message[0] == Op.REPLY:
            self._ended(message)
        return taken

    def overrun(self) -> None:
        self.relay.world.tally.seen["programs overrun"] += 1
        self.relay.world.faults.may_lose = True
        self.relay.world.schedule.after(0.0, self.relay.do, self.close, "stalled")

    def flush(self) -> None:
        outbox, program = self.outbox, self.program
        while outbox.size and self._under_way < PIPE:
            data = outbox.take(BATCH)
            self._under_way += len(data)
            self.relay.world.schedule.after(program.delay, program.arrive, data)

    def taken(self, octets: int) -> None:
        """The program has read so much."""
        self._under_way -= octets
        if self.outbox.size:
            self.relay.do(self.flush)

    def _wake(self) -> None:
        self.relay.flusher.dirty.append(self)

    # What the program says.

    def understand(self, data: bytes, sent: list[Request]) -> None:
        """`sent` are the requests whose messages begin in these octets, or before."""
        if not self.open:
            return
        now = self.relay.now
        self.relay.world.trace.arrived(data)
        for request in sent:
            self._unaccepted[request.number] = request
        self._unpacker.feed(data)
        for message in self._unpacker:
            self._handlers[message[0]](message, now)
            if not self.open:
                return
        for number in [n for n in self._unaccepted if n in self.endpoint.requests]:
            self._accepted(self._unaccepted.pop(number))

    def _on_ping(self, token: int) -> None:
        if not self.outbox.put_after_bodies((Op.PONG.value, token)):
            self.overrun()

    def close(self, reason: str) -> None:
        """The relay ends it, or sees that the program has."""
        if self.open:
            self.relay.world.trace.note(self.relay.node, "detaches", self.program.key, reason)
            self.open = False
            self.relay.attachments.pop(self, None)
            self.relay.core.programs.detach(self.endpoint, self.relay.now)
            # What is queued still leaves, and the end of it last.
            while self.outbox.size:
                data = self.outbox.take(BATCH)
                self.relay.world.schedule.after(self.program.delay, self.program.arrive, data)
            self.relay.world.schedule.after(self.program.delay, self.program.hear_end, reason)

    def relay_gone(self) -> None:
        self.open = False
        self.relay.attachments.pop(self, None)
        delay = self.program.delay
        self.relay.world.schedule.after(delay, self.program.hear_end, "the relay crashed")

    # Deadlines.

    def _accepted(self, request: Request) -> None:
        world = self.relay.world
        request.deadline = world.schedule.time + request.timeout
        world.schedule.at(request.deadline + ON_TIME, self.relay.do, self._check_ended, request)

    def _ended(self, message: Message) -> None:
        """An outcome was queued for the program: once, and in time."""
        op, number = message[:2]
        request = self.program.caller.open.get(number)
        if request is None:
            return  # the program has given it up, and that is on its way; or it is ended twice
        request.check_outcome(op, message, self)

    def _check_ended(self, request: Request) -> None:
        call = self.endpoint.requests.get(request.number)
        if call is None or not self.open:
            return
        world = self.relay.world
        if world.schedule.time < self.relay.resumed + ON_TIME:
            world.schedule.at(
                self.relay.resumed + ON_TIME, self.relay.do, self._check_ended, request
            )
            return
        text = f"{request.key} is open {world.schedule.time - request.deadline:.3f} s after it"
        raise Violation("a request ends by its deadline", text, request.key, self.relay.node)

    def __hash__(self) -> int:
        return id(self)

    def later_than(self, seconds: float) -> bool:
        """Whether the relay ran on so long after a moment of the world."""
        return self.relay.world.schedule.time > max(seconds, self.relay.resumed) + ON_TIME
