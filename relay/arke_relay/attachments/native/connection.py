"""The connection of a program that speaks the native protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from arke.wire.limits import MAX_REASON, unpacker
from arke.wire.malformed import DECODE_ERRORS, Malformed, describe_malformed
from arke.wire.messages import VERSION, Op
from arke.wire.outbox import Outbox
from arke.wire.reassembly import Reassembler
from arke_relay.attachments.connection import MAX_QUEUED, ProgramConnection
from arke_relay.attachments.context import AttachmentContext
from arke_relay.attachments.detach_reason import DetachReason, UnsupportedVersion
from arke_relay.attachments.native.broadcasts import NativeBroadcasts
from arke_relay.attachments.native.fields import Handler
from arke_relay.attachments.native.handshake import read_hello
from arke_relay.attachments.native.registration import NativeRegistration
from arke_relay.attachments.native.requests import NativeRequests
from arke_relay.attachments.native.tunnels import NativeTunnels
from arke_relay.core.attached_programs import NotAllowed
from arke_relay.core.endpoints import Message

_MAX_PARTIAL_BYTES = 64 * 1024 * 1024
"""Bytes of large bodies that one program may have sent in part."""

_OPS = frozenset(Op)


class NativeConnection(ProgramConnection):
    """Decodes messages and calls the handler of each operation."""

    def __init__(self, context: AttachmentContext, transport: asyncio.Transport) -> None:
        outbox = Outbox(MAX_QUEUED, self._wake, self.flush)
        super().__init__(context, transport, outbox)
        # Most of the MessageSink is the outbox itself: this saves a call for every message.
        self.put = outbox.put
        self.put_body = outbox.put_body
        self.put_packed = outbox.put_packed
        self.put_in_flow = outbox.put_in_flow
        self.drop_flow = outbox.drop_flow
        max_message = context.max_message
        self._inbox = Reassembler(max_message, max(_MAX_PARTIAL_BYTES, 2 * max_message))
        self._unpacker = unpacker()
        self._handlers: list[Handler] = [self._unknown] * 64
        self._add_handlers(
            {
                Op.HELLO: self._on_hello,
                Op.PING: self._on_ping,
                Op.PONG: self._on_pong,
                Op.CLOSE: self._on_close,
                Op.CHUNK: self._on_chunk,
            }
        )

    def handle_data(self, data: bytes | memoryview) -> None:
        self.received = True
        now = self._clock()
        unpacked = self._unpacker
        handlers = self._handlers
        try:
            unpacked.feed(data)
            for message in unpacked:
                handlers[message[0]](message, now)
        except NotAllowed as violation:
            self.end(DetachReason.NOT_ALLOWED, str(violation))
        except DECODE_ERRORS as error:
            text = f"protocol error: {describe_malformed(error)}"
            self.end(DetachReason.PROTOCOL_ERROR, text)
        self._flusher.flush()

    def ping(self) -> None:
        self.put((Op.PING.value, 0))

    def _send_reason(self, text: str) -> None:
        self._outbox.put((Op.CLOSE.value, text[:MAX_REASON]))

    def _stop_handling(self) -> None:
        # In place: `handle_data` may be iterating. It also frees the handlers' references to us.
        self._handlers[:] = [_ignore] * 64

    @property
    def receiving(self) -> bool:
        return self._inbox.size > 0

    # Messages.

    def _on_hello(self, message: Message, now: float) -> None:
        if self._program is not None:
            raise Malformed("a second HELLO")
        try:
            hello = read_hello(message)
        except UnsupportedVersion as error:
            self.end(DetachReason.UNSUPPORTED_VERSION, str(error))
            return
        context = self._context
        core = context.core
        if core.router.draining:
            self.end(DetachReason.RELAY_STOPPING)
            return
        self.identity = hello.identity
        program = self._program = context.registry.attached(hello.name, self, self)
        inbox = self._inbox
        self._add_handlers(NativeRequests(program, inbox, core.router, core.directory).handlers)
        self._add_handlers(NativeBroadcasts(program, inbox, core).handlers)
        self._add_handlers(NativeTunnels(program, core.tunnels).handlers)
        self._add_handlers(NativeRegistration(program, context).handlers)
        self.put(
            (
                Op.WELCOME.value,
                VERSION,
                core.node.id,
                core.node.address,
                context.network,
                context.max_message,
            )
        )

    def _on_ping(self, message: Message, now: float) -> None:
        token = message[1]
        if type(token) is not int:
            raise Malformed("a token must be a number")
        if not self._outbox.put_after_bodies((Op.PONG.value, token)):
            self.overrun()  # the program would wait for it without end

    def _on_pong(self, message: Message, now: float) -> None:
        """Any traffic counts as a sign of life."""

    def _on_close(self, message: Message, now: float) -> None:
        self._close(DetachReason.CLOSED_BY_PROGRAM)

    def _on_chunk(self, message: Message, now: float) -> None:
        self._inbox.add_chunk(message[1], message[2], message[3])

    def _unknown(self, message: Message, now: float) -> None:
        if self._program is None and message[0] in _OPS:
            raise Malformed("HELLO must be the first message")
        raise Malformed(f"unknown operation {message[0]!r:.20}")

    def _add_handlers(self, handlers: Mapping[int, Handler]) -> None:
        for op, handler in handlers.items():
            self._handlers[op] = handler


def _ignore(message: Message, now: float) -> None:
    """Messages of a closing connection are discarded."""
