"""Requests of an Iris program, and requests to it.

An Iris program numbers its requests and its tunnels separately. Here both are requests: number n
becomes request id 2n for a request, and 2n + 1 for a tunnel.
"""

from __future__ import annotations

from arke.wire.limits import MAX_TIMEOUT_MS
from arke.wire.messages import Failure, Op
from arke_relay.attachments.detach_reason import DETACH_TEXTS, DetachReason
from arke_relay.attachments.iris import packets
from arke_relay.attachments.iris.fields import (
    read_binary,
    read_flag,
    read_name,
    read_text,
    read_varint,
)
from arke_relay.attachments.iris.handler import Encoder, PacketHandler
from arke_relay.attachments.iris.packets import Packet
from arke_relay.core.endpoints import Message, MessageSink, Program
from arke_relay.core.routed_request import RoutedRequest
from arke_relay.core.router import Router

_MAX_FAULT = 4096
"""Characters of a fault that are forwarded."""

_FAULT_TYPE = "Fault"
"""Faults of Iris programs have no type."""

_TIMEOUTS = frozenset((Failure.TIMED_OUT, Failure.NO_SUCH_CLUSTER))
"""Failures that an Iris program sees as a timeout."""


class IrisRequests:
    """Handlers for one program. `sink` is the program's own, `max_message` in bytes."""

    def __init__(
        self, program: Program, router: Router, sink: MessageSink, max_message: int
    ) -> None:
        self._program = program
        self._router = router
        self._sink = sink
        self._max_message = max_message

    @property
    def handlers(self) -> dict[int, PacketHandler]:
        return {Packet.REQUEST: self._on_request, Packet.REPLY: self._on_reply}

    def _on_request(self, data: bytes, at: int, now: float) -> int:
        number, at = read_varint(data, at)
        cluster, at = read_name(data, at)
        body, at = read_binary(data, at, self._max_message)
        timeout_ms, at = read_varint(data, at)
        request_id = 2 * number
        if self._router.draining:
            # Native programs resend such requests after DRAINING; Iris has no such message.
            text = DETACH_TEXTS[DetachReason.RELAY_STOPPING]
            self._sink.put((Op.FAILED.value, request_id, Failure.OVERLOADED.value, text))
            return at
        program = self._program
        deadline = now + min(timeout_ms, MAX_TIMEOUT_MS) / 1000
        request = RoutedRequest(program, request_id, cluster, body, deadline, program.sender, None)
        self._router.request(request, now)
        return at

    def _on_reply(self, data: bytes, at: int, now: float) -> int:
        request_id, at = read_varint(data, at)
        succeeded, at = read_flag(data, at)
        if succeeded:
            body, at = read_binary(data, at, self._max_message)
            self._router.reply(self._program, request_id, body, now)
        else:
            text, at = read_text(data, at, self._max_message)
            self._router.fault(self._program, request_id, _FAULT_TYPE, text[:_MAX_FAULT], now)
        return at


def _encode_request(message: Message) -> bytes:
    return packets.request(message[1], bytes(message[2]), message[3])


def _encode_reply(message: Message) -> bytes:
    return packets.reply(message[1] >> 1, bytes(message[2]))


def _encode_fault(message: Message) -> bytes:
    _, request_id, kind, text = message
    if request_id & 1:
        return packets.tunnel_timed_out(request_id >> 1)
    return packets.fault(request_id >> 1, text or kind)


def _encode_failure(message: Message) -> bytes:
    _, request_id, failure, text = message
    if request_id & 1:
        return packets.tunnel_timed_out(request_id >> 1)
    if failure in _TIMEOUTS:
        return packets.timed_out(request_id >> 1)
    return packets.fault(request_id >> 1, text)


ENCODERS: dict[int, Encoder] = {
    Op.DELIVER_REQUEST: _encode_request,
    Op.REPLY: _encode_reply,
    Op.FAULT: _encode_fault,
    Op.FAILED: _encode_failure,
}
