"""One program's connection: octets to messages and back, its beginning and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from arke.wire.limits import MAX_IDENTITY, MAX_REASON, unpacker
from arke.wire.malformed import DECODE_ERRORS, Malformed, describe_malformed
from arke.wire.messages import MAGIC, VERSION, Op
from arke.wire.outbox import Outbox
from arke.wire.reassembly import Reassembler
from arke_relay.attachments.connection import OUTBOX, Connection
from arke_relay.attachments.native.broadcasts import NativeBroadcasts
from arke_relay.attachments.native.fields import Handler
from arke_relay.attachments.native.registration import Registry
from arke_relay.attachments.native.requests import NativeRequests
from arke_relay.attachments.native.tunnels import NativeTunnels
from arke_relay.attachments.program_registry import LEFT, ProgramRegistry
from arke_relay.core.endpoints import Message
from arke_relay.core.message_core import NotAllowed

_INBOX = 64 * 1024 * 1024
_OPS = frozenset(Op)


class NativeConnection(Connection):
    """A program that speaks the native protocol."""

    def __init__(self, registry: ProgramRegistry, transport: asyncio.Transport) -> None:
        outbox = Outbox(OUTBOX, self._wake, self.flush)
        super().__init__(registry, transport, outbox)
        # The sink's part of this is the outbox itself: a call less for every message.
        self.put = outbox.put
        self.put_body = outbox.put_body
        self.put_packed = outbox.put_packed
        self.put_in_flow = outbox.put_in_flow
        self.drop_flow = outbox.drop_flow
        self._inbox = Reassembler(registry.max_message, max(_INBOX, 2 * registry.max_message))
        self._unpacker = unpacker()
        self._handlers: list[Handler] = [self._unknown] * 64
        self._handle(
            {
                Op.HELLO: self._on_hello,
                Op.PING: self._on_ping,
                Op.PONG: self._on_pong,
                Op.CLOSE: self._on_close,
                Op.CHUNK: self._on_chunk,
            }
        )

    def understand(self, data: bytes | memoryview) -> None:
        self.heard = True
        now = self._registry.clock()
        unpacked = self._unpacker
        handlers = self._handlers
        try:
            unpacked.feed(data)
            for message in unpacked:
                handlers[message[0]](message, now)
        except NotAllowed as error:
            self.end(str(error))
        except DECODE_ERRORS as error:
            self.end(f"not understood: {describe_malformed(error)}")
        self._flusher.flush()

    def ping(self) -> None:
        self.put((Op.PING.value, 0))

    def _say_why(self, reason: str) -> None:
        self._outbox.put((Op.CLOSE.value, reason[:MAX_REASON]))

    def _stop_handling(self) -> None:
        # In place, for whoever is going through them; what they hold is this connection itself.
        self._handlers[:] = [_ignore] * 64

    @property
    def receiving(self) -> bool:
        return self._inbox.size > 0

    # Messages.

    def _on_hello(self, message: Message, now: float) -> None:
        _, magic, version, name = message[:4]
        if magic != MAGIC or type(name) is not str or self._program is not None:
            raise Malformed("not the hello of an Arke program")
        if type(version) is not int:
            raise Malformed("a version is a number")
        if version != VERSION:
            self.end(f"this relay speaks version {VERSION} of the protocol, not {version}")
            return
        registry = self._registry
        if registry.core.router.draining:
            self.end("the relay is leaving")
            return
        if len(message) > 4:
            self.identity = _identity(message[4])
        program = self._program = registry.attached(name[:200], self, self)
        core, inbox = registry.core, self._inbox
        self._handle(NativeRequests(program, inbox, core).handlers)
        self._handle(NativeBroadcasts(program, inbox, core).handlers)
        self._handle(NativeTunnels(program, core).handlers)
        self._handle(Registry(program, registry).handlers)
        self.put(
            (
                Op.WELCOME.value,
                VERSION,
                core.node,
                core.address,
                registry.network,
                registry.max_message,
            )
        )

    def _on_ping(self, message: Message, now: float) -> None:
        token = message[1]
        if type(token) is not int:
            raise Malformed("a token is a number")
        if not self._outbox.put_after_bodies((Op.PONG.value, token)):
            self.overrun()  # whoever waits for it would wait for ever

    def _on_pong(self, message: Message, now: float) -> None:
        """Being heard was all it was for."""

    def _on_close(self, message: Message, now: float) -> None:
        self._close(LEFT)

    def _on_chunk(self, message: Message, now: float) -> None:
        self._inbox.add_chunk(message[1], message[2], message[3])

    def _unknown(self, message: Message, now: float) -> None:
        if self._program is None and message[0] in _OPS:
            raise Malformed("it did not say hello first")
        raise Malformed(f"unknown operation {message[0]!r:.20}")

    def _handle(self, handlers: Mapping[int, Handler]) -> None:
        for op, handler in handlers.items():
            self._handlers[op] = handler


def _identity(value: object) -> bytes:
    if type(value) is not bytes or not 0 < len(value) <= MAX_IDENTITY:
        raise Malformed(f"an identity is 1 to {MAX_IDENTITY} octets")
    return value


def _ignore(message: Message, now: float) -> None:
    """Nothing that comes behind the end counts."""
