"""An honest program at a relay whose other guests are not: it must never notice them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgpack import packb

from arke.wire.chunked_body import BodyChunks
from arke.wire.limits import CHUNK, MAX_MESSAGE, MIN_WINDOW, READ_SIZE, unpacker
from arke.wire.malformed import DECODE_ERRORS
from arke.wire.messages import MAGIC, VERSION, Op, Purpose, TunnelClose
from arke.wire.reassembly import Reassembler
from arke_relay.attachments.context import AttachmentContext
from arke_relay.attachments.protocol_detection import ProtocolDetector
from fuzz.finding import Finding, promise
from fuzz.loop import FakeLoop, FakeTransport
from fuzz.shapes import fits

_TUNNELS = 8
_BODIES = {
    Op.DELIVER_REQUEST: 2,
    Op.DELIVER_BROADCAST: 1,
    Op.DELIVER_EVENT: 2,
    Op.OFFER: 2,
    Op.REPLY: 2,
}
_CASTS = {Op.DELIVER_BROADCAST, Op.DELIVER_EVENT}


class HonestProgram:
    """Answers calls with their bodies, takes tunnels and echoes them, reads all it is told."""

    def __init__(self, context: AttachmentContext, loop: FakeLoop, name: str) -> None:
        self.transport = FakeTransport(loop, ProtocolDetector(context, loop))
        self._unpacker = unpacker()
        self._inbox = Reassembler(MAX_MESSAGE, 4 * MAX_MESSAGE)
        self._calls = 0
        self.open_calls: set[int] = set()
        self.answers: dict[int, Any] = {}
        self.tunnels: set[int] = set()
        """By the names that go out for them."""
        self.echoed: dict[int, bytes] = {}
        self._credit: dict[int, int] = {}
        self.say(Op.HELLO, MAGIC, VERSION, name)

    def say(self, op: int, *fields: Any) -> None:
        self.transport.feed(packb((int(op), *fields)))

    def ask(self, cluster: str, body: bytes = b"question", timeout: int = 60_000) -> int:
        call = self._next()
        self.say(Op.REQUEST, call, cluster, body, timeout, True, None)
        return call

    def open(self, cluster: str) -> int:
        call = self._next()
        sizes = Purpose.TUNNEL.value, MIN_WINDOW, MAX_MESSAGE
        self.say(Op.OPEN, call, cluster, b"", 60_000, None, *sizes, None)
        return call

    def send(self, tunnel: int, data: bytes) -> None:
        self.say(Op.DATA, tunnel, None, packb(data))

    def end(self, tunnel: int) -> None:
        self.tunnels.discard(tunnel)
        self._credit.pop(tunnel, None)
        self.say(Op.END, tunnel, TunnelClose.CLOSED.value, "", "")

    def react(self) -> bool:
        """Read what came, and do what it asks. False: nothing came."""
        received = self.transport.received
        promise(not self.transport.lost, "an innocent connection was closed")
        if not received:
            return False
        octets = bytes(received)
        received.clear()
        try:
            for at in range(0, len(octets), READ_SIZE):
                self._unpacker.feed(octets[at : at + READ_SIZE])
                for message in self._unpacker:
                    promise(fits(message), f"an innocent was told {message!r:.200}")
                    self._take(message)
        except DECODE_ERRORS as error:
            raise Finding(f"an innocent cannot read what it is told: {error}") from error
        return True

    def _next(self) -> int:
        self._calls += 1
        self.open_calls.add(self._calls)
        return self._calls

    def _take(self, message: tuple[Any, ...]) -> None:
        op, *fields = message
        at = _BODIES.get(op)
        if at is not None and type(message[at]) is not bytes:
            join = self._inbox.take_fanout if op in _CASTS else self._inbox.take_body
            joined = join(message[at])
            fields[at - 1] = bytes(joined) if isinstance(joined, BodyChunks) else joined
        take = self._handlers.get(op)
        if take is not None:
            take(*fields)

    @property
    def _handlers(self) -> dict[int, Callable[..., None]]:
        return {
            Op.CHUNK: self._inbox.add_chunk,
            Op.DELIVER_REQUEST: self._on_call,
            Op.OFFER: self._on_offer,
            Op.ACCEPT: self._on_accept,
            Op.DATA: self._on_data,
            Op.CREDIT: self._on_credit,
            Op.END: self._on_end,
            Op.PING: lambda token: self.say(Op.PONG, token),
            Op.REPLY: self._end_call,
            Op.FAULT: self._end_call,
            Op.FAILED: self._end_call,
        }

    def _on_call(self, call: int, body: bytes, *_: Any) -> None:
        self.say(Op.REPLY, call, body[:CHUNK])

    def _end_call(self, call: int, *outcome: Any) -> None:
        promise(call in self.open_calls, f"call {call} of an innocent ended twice")
        self.open_calls.remove(call)
        self.answers[call] = outcome[0] if len(outcome) == 1 else outcome

    def _on_offer(self, call: int, *_: Any) -> None:
        if len(self.tunnels) >= _TUNNELS:
            self.say(Op.REFUSED, call, "full")
            return
        self.tunnels.add(-call)
        self.say(Op.ACCEPT, call, MIN_WINDOW, MAX_MESSAGE)
        self.say(Op.CREDIT, -call, MIN_WINDOW)

    def _on_accept(self, call: int, *_: Any) -> None:
        self._end_call(call, "opened")
        self.tunnels.add(call)
        self.say(Op.CREDIT, call, MIN_WINDOW)

    def _on_data(self, name: int, _: int | None, data: bytes) -> None:
        tunnel = -name
        if tunnel not in self.tunnels:
            return
        if tunnel > 0:  # ours: what we sent has come back
            self.echoed[tunnel] = self.echoed.get(tunnel, b"") + data
        elif self._credit.get(tunnel, 0) >= len(data):
            self._credit[tunnel] -= len(data)
            self.say(Op.DATA, tunnel, None, data)
        self.say(Op.CREDIT, tunnel, len(data))

    def _on_credit(self, name: int, octets: int) -> None:
        self._credit[-name] = self._credit.get(-name, 0) + octets

    def _on_end(self, name: int, ending: int, *_: str) -> None:
        tunnel = -name
        if tunnel in self.tunnels and ending != TunnelClose.ABORTED:
            self.say(Op.END, tunnel, TunnelClose.CLOSED.value, "", "")
        self.tunnels.discard(tunnel)
        self._credit.pop(tunnel, None)
