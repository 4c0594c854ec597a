"""Broadcasts, events and subscriptions of an Iris program."""

from __future__ import annotations

from arke.wire.chunked_body import FanoutBody
from arke.wire.messages import Op
from arke_relay.attachments.context import AttachmentContext
from arke_relay.attachments.iris import packets
from arke_relay.attachments.iris.fields import read_binary, read_name
from arke_relay.attachments.iris.handler import Encoder, PacketHandler
from arke_relay.attachments.iris.packets import Packet
from arke_relay.attachments.rate_limit import RegistrationRateLimit
from arke_relay.core.endpoints import Message, Program


class IrisBroadcasts:
    """Handlers for one program."""

    def __init__(self, program: Program, context: AttachmentContext) -> None:
        self._program = program
        self._registry = context.registry
        self._max_message = context.max_message
        self._broadcasts = context.core.broadcasts
        self._rate_limit = RegistrationRateLimit()

    @property
    def handlers(self) -> dict[int, PacketHandler]:
        return {
            Packet.BROADCAST: self._on_broadcast,
            Packet.PUBLISH: self._on_publish,
            Packet.SUBSCRIBE: self._on_subscribe,
            Packet.UNSUBSCRIBE: self._on_unsubscribe,
        }

    def _on_broadcast(self, data: bytes, at: int, now: float) -> int:
        cluster, at = read_name(data, at)
        body, at = read_binary(data, at, self._max_message)
        self._broadcasts.broadcast(self._program, cluster, body, None)
        return at

    def _on_publish(self, data: bytes, at: int, now: float) -> int:
        topic, at = read_name(data, at)
        body, at = read_binary(data, at, self._max_message)
        self._broadcasts.publish(self._program, topic, body, None)
        return at

    def _on_subscribe(self, data: bytes, at: int, now: float) -> int:
        topic, at = read_name(data, at)
        self._rate_limit.count(now)
        self._registry.subscribe(self._program, topic)
        return at

    def _on_unsubscribe(self, data: bytes, at: int, now: float) -> int:
        topic, at = read_name(data, at)
        self._registry.unsubscribe(self._program, topic)
        return at


def _encode_broadcast(message: Message) -> bytes:
    return b"".join(packets.broadcast(body) for body in _bodies(message[1]))


def _encode_event(message: Message) -> bytes:
    topic = message[1]
    return b"".join(packets.publish(topic, body) for body in _bodies(message[2]))


def _bodies(body: FanoutBody) -> tuple[bytes, ...]:
    return body if isinstance(body, tuple) else (bytes(body),)


ENCODERS: dict[int, Encoder] = {
    Op.DELIVER_BROADCAST: _encode_broadcast,
    Op.DELIVER_EVENT: _encode_event,
}
