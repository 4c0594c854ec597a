"""What an Iris program tells many, and is told with many others."""

from __future__ import annotations

from arke.wire.chunked_body import FanoutBody
from arke.wire.messages import Op
from arke_relay.attachments.iris import packets
from arke_relay.attachments.iris.fields import binary, name
from arke_relay.attachments.iris.handler import Encoder, Handler
from arke_relay.attachments.iris.packets import Packet
from arke_relay.attachments.program_registry import ProgramRegistry
from arke_relay.attachments.rate_limit import RegistrationRateLimit
from arke_relay.core.endpoints import Message, Program


class IrisBroadcasts:
    """Broadcasts, events and subscriptions of one program."""

    def __init__(self, program: Program, registry: ProgramRegistry) -> None:
        self._program = program
        self._registry = registry
        self._casts = registry.core.broadcasts
        self._changes = RegistrationRateLimit()

    @property
    def handlers(self) -> dict[int, Handler]:
        return {
            Packet.BROADCAST: self._on_broadcast,
            Packet.PUBLISH: self._on_publish,
            Packet.SUBSCRIBE: self._on_subscribe,
            Packet.UNSUBSCRIBE: self._on_unsubscribe,
        }

    def _on_broadcast(self, data: bytes, at: int, now: float) -> int:
        cluster, at = name(data, at)
        body, at = binary(data, at, self._registry.max_message)
        self._casts.broadcast(self._program, cluster, body, None)
        return at

    def _on_publish(self, data: bytes, at: int, now: float) -> int:
        topic, at = name(data, at)
        body, at = binary(data, at, self._registry.max_message)
        self._casts.publish(self._program, topic, body, None)
        return at

    def _on_subscribe(self, data: bytes, at: int, now: float) -> int:
        topic, at = name(data, at)
        self._changes.count(now)
        self._registry.subscribe(self._program, topic)
        return at

    def _on_unsubscribe(self, data: bytes, at: int, now: float) -> int:
        topic, at = name(data, at)
        self._registry.unsubscribe(self._program, topic)
        return at


def _told(message: Message) -> bytes:
    return b"".join(packets.broadcast(body) for body in _bodies(message[1]))


def _event(message: Message) -> bytes:
    topic = message[1]
    return b"".join(packets.publish(topic, body) for body in _bodies(message[2]))


def _bodies(body: FanoutBody) -> tuple[bytes, ...]:
    return body if isinstance(body, tuple) else (bytes(body),)


ENCODERS: dict[int, Encoder] = {Op.DELIVER_BROADCAST: _told, Op.DELIVER_EVENT: _event}
