"""A valid program at a relay with untrusted ones: these must not affect it."""

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
from fuzz.finding import Finding, require
from fuzz.message_fields import is_valid
from fuzz.simulated_loop import SimulatedLoop, SimulatedTransport

_TUNNELS = 8
_BODIES = {
    Op.DELIVER_REQUEST: 2,
    Op.DELIVER_BROADCAST: 1,
    Op.DELIVER_EVENT: 2,
    Op.OFFER: 2,
    Op.REPLY: 2,
}
_FANOUT = {Op.DELIVER_BROADCAST, Op.DELIVER_EVENT}


class ValidProgram:
    """It replies to requests with their bodies, echoes tunnels, and checks each message it gets."""

    def __init__(self, context: AttachmentContext, loop: SimulatedLoop, name: str) -> None:
        self.transport = SimulatedTransport(loop, ProtocolDetector(context, loop))
        self._unpacker = unpacker()
        self._inbox = Reassembler(MAX_MESSAGE, 4 * MAX_MESSAGE)
        self._last_id = 0
        self.open_requests: set[int] = set()
        self.answers: dict[int, Any] = {}
        self.tunnels: set[int] = set()
        """Open tunnels, by the ids that this program sends."""
        self.echoed: dict[int, bytes] = {}
        self._credit: dict[int, int] = {}
        self.send_message(Op.HELLO, MAGIC, VERSION, name)

    def send_message(self, op: int, *fields: Any) -> None:
        self.transport.feed(packb((int(op), *fields)))

    def send_request(self, cluster: str, body: bytes = b"question", timeout: int = 60_000) -> int:
        request_id = self._next()
        self.send_message(Op.REQUEST, request_id, cluster, body, timeout, True, None)
        return request_id

    def open(self, cluster: str) -> int:
        request_id = self._next()
        sizes = Purpose.TUNNEL.value, MIN_WINDOW, MAX_MESSAGE
        self.send_message(Op.OPEN, request_id, cluster, b"", 60_000, None, *sizes, None)
        return request_id

    def send(self, tunnel: int, data: bytes) -> None:
        self.send_message(Op.DATA, tunnel, None, packb(data))

    def end(self, tunnel: int) -> None:
        self.tunnels.discard(tunnel)
        self._credit.pop(tunnel, None)
        self.send_message(Op.END, tunnel, TunnelClose.CLOSED.value, "", "")

    def process_received(self) -> bool:
        """Handle the received messages. Returns False if there were none."""
        received = self.transport.received
        require(not self.transport.lost, "the connection of a valid program was closed")
        if not received:
            return False
        data = bytes(received)
        received.clear()
        try:
            for at in range(0, len(data), READ_SIZE):
                self._unpacker.feed(data[at : at + READ_SIZE])
                for message in self._unpacker:
                    require(is_valid(message), f"a valid program got {message!r:.200}")
                    self._handle(message)
        except DECODE_ERRORS as error:
            raise Finding(f"a valid program cannot decode a message: {error}") from error
        return True

    def _next(self) -> int:
        self._last_id += 1
        self.open_requests.add(self._last_id)
        return self._last_id

    def _handle(self, message: tuple[Any, ...]) -> None:
        op, *fields = message
        at = _BODIES.get(op)
        if at is not None and type(message[at]) is not bytes:
            join = self._inbox.take_fanout if op in _FANOUT else self._inbox.take_body
            joined = join(message[at])
            fields[at - 1] = bytes(joined) if isinstance(joined, BodyChunks) else joined
        take = self._handlers.get(op)
        if take is not None:
            take(*fields)

    @property
    def _handlers(self) -> dict[int, Callable[..., None]]:
        return {
            Op.CHUNK: self._inbox.add_chunk,
            Op.DELIVER_REQUEST: self._on_request,
            Op.OFFER: self._on_offer,
            Op.ACCEPT: self._on_accept,
            Op.DATA: self._on_data,
            Op.CREDIT: self._on_credit,
            Op.END: self._on_end,
            Op.PING: lambda token: self.send_message(Op.PONG, token),
            Op.REPLY: self._end_request,
            Op.FAULT: self._end_request,
            Op.FAILED: self._end_request,
        }

    def _on_request(self, request_id: int, body: bytes, *_: Any) -> None:
        self.send_message(Op.REPLY, request_id, body[:CHUNK])

    def _end_request(self, request_id: int, *outcome: Any) -> None:
        require(
            request_id in self.open_requests, f"request {request_id} of a valid program ended twice"
        )
        self.open_requests.remove(request_id)
        self.answers[request_id] = outcome[0] if len(outcome) == 1 else outcome

    def _on_offer(self, request_id: int, *_: Any) -> None:
        if len(self.tunnels) >= _TUNNELS:
            self.send_message(Op.REFUSED, request_id, "full")
            return
        self.tunnels.add(-request_id)
        self.send_message(Op.ACCEPT, request_id, MIN_WINDOW, MAX_MESSAGE)
        self.send_message(Op.CREDIT, -request_id, MIN_WINDOW)

    def _on_accept(self, request_id: int, *_: Any) -> None:
        self._end_request(request_id, "opened")
        self.tunnels.add(request_id)
        self.send_message(Op.CREDIT, request_id, MIN_WINDOW)

    def _on_data(self, name: int, _: int | None, data: bytes) -> None:
        tunnel = -name
        if tunnel not in self.tunnels:
            return
        if tunnel > 0:  # this program opened the tunnel: the data is its echo
            self.echoed[tunnel] = self.echoed.get(tunnel, b"") + data
        elif self._credit.get(tunnel, 0) >= len(data):
            self._credit[tunnel] -= len(data)
            self.send_message(Op.DATA, tunnel, None, data)
        self.send_message(Op.CREDIT, tunnel, len(data))

    def _on_credit(self, name: int, data: int) -> None:
        self._credit[-name] = self._credit.get(-name, 0) + data

    def _on_end(self, name: int, ending: int, *_: str) -> None:
        tunnel = -name
        if tunnel in self.tunnels and ending != TunnelClose.ABORTED:
            self.send_message(Op.END, tunnel, TunnelClose.CLOSED.value, "", "")
        self.tunnels.discard(tunnel)
        self._credit.pop(tunnel, None)
