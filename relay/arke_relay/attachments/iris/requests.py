"""What an Iris program asks and answers, and what it is told of that.

Requests and tunnels have numbers of their own at such a program. Both are calls of ours: a request
has the even number of the two that belong to its own, an opening the odd one.
"""

from __future__ import annotations

from arke.wire.limits import MAX_TIMEOUT_MS
from arke.wire.messages import Failure, Op
from arke_relay.attachments.iris import packets
from arke_relay.attachments.iris.fields import binary, flag, name, text, varint
from arke_relay.attachments.iris.handler import Encoder, Handler
from arke_relay.attachments.iris.packets import Packet
from arke_relay.core.endpoints import Message, MessageSink, Program
from arke_relay.core.message_core import MessageCore
from arke_relay.core.routed_request import RoutedRequest

_TEXT = 4096  # characters of a fault that cross
_FAULT = "Fault"
"""The type of a fault that has none."""

_UNANSWERED = frozenset((Failure.TIMED_OUT, Failure.NO_SUCH_CLUSTER))


class IrisRequests:
    """Requests of one program, and its answers to others'."""

    def __init__(
        self, program: Program, core: MessageCore, sink: MessageSink, largest: int
    ) -> None:
        self._program = program
        self._router = core.router
        self._outlet = sink
        self._largest = largest

    @property
    def handlers(self) -> dict[int, Handler]:
        return {Packet.REQUEST: self._on_request, Packet.REPLY: self._on_reply}

    def _on_request(self, data: bytes, at: int, now: float) -> int:
        number, at = varint(data, at)
        cluster, at = name(data, at)
        body, at = binary(data, at, self._largest)
        timeout, at = varint(data, at)
        call = 2 * number
        if self._router.draining:
            # Native programs wait for another relay, and ask again; these are told.
            text = "the relay is leaving"
            self._outlet.put((Op.FAILED.value, call, Failure.OVERLOADED.value, text))
            return at
        program = self._program
        deadline = now + min(timeout, MAX_TIMEOUT_MS) / 1000
        facts = (program, call, cluster, body, now, deadline, False, program.sender, None)
        self._router.request(RoutedRequest(*facts), now)
        return at

    def _on_reply(self, data: bytes, at: int, now: float) -> int:
        call, at = varint(data, at)
        succeeded, at = flag(data, at)
        if succeeded:
            body, at = binary(data, at, self._largest)
            self._router.reply(self._program, call, body, now)
        else:
            fault, at = text(data, at, self._largest)
            self._router.fault(self._program, call, _FAULT, fault[:_TEXT], now)
        return at


def _call(message: Message) -> bytes:
    return packets.request(message[1], bytes(message[2]), message[3])


def _reply(message: Message) -> bytes:
    return packets.reply(message[1] >> 1, bytes(message[2]))


def _fault(message: Message) -> bytes:
    _, call, kind, text = message
    if call & 1:
        return packets.tunnel_timed_out(call >> 1)
    return packets.fault(call >> 1, text or kind)


def _failed(message: Message) -> bytes:
    _, call, failure, text = message
    if call & 1:
        return packets.tunnel_timed_out(call >> 1)
    if failure in _UNANSWERED:
        return packets.timed_out(call >> 1)
    return packets.fault(call >> 1, text)


ENCODERS: dict[int, Encoder] = {
    Op.DELIVER_REQUEST: _call,
    Op.REPLY: _reply,
    Op.FAULT: _fault,
    Op.FAILED: _failed,
}
