"""One program's connection: octets to messages and back, its beginning and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from arke.wire.bounds import HIGH_WATER, MAX_REASON, READ, unpacker
from arke.wire.inbox import Inbox
from arke.wire.malformed import UNREADABLE, Malformed, why
from arke.wire.messages import MAGIC, VERSION, Op
from arke.wire.outbox import Outbox
from arke_relay.attachments.hub import Hub
from arke_relay.attachments.native.calls import Calls
from arke_relay.attachments.native.casts import Casts
from arke_relay.attachments.native.fields import Handler
from arke_relay.attachments.native.registry import Registry
from arke_relay.attachments.native.tunnels import Tunnels
from arke_relay.attachments.turns import PIECE
from arke_relay.core.exchange import NotAllowed
from arke_relay.core.parties import Message, Program

_OUTBOX = 64 * 1024 * 1024
"""Octets a program may leave unread before what comes next is dropped, and counted."""

_INBOX = 64 * 1024 * 1024
_OPS = frozenset(Op)


class NativeConnection(asyncio.Protocol):
    """A program that speaks the native protocol; the outlet of its Program."""

    def __init__(self, hub: Hub, transport: asyncio.Transport) -> None:
        self._hub = hub
        self._transport = transport
        self._flusher = hub.flusher
        self._outbox = Outbox(_OUTBOX, self._wake, self.flush)
        # The outlet's part of this is the outbox itself: a call less for every message.
        self.put = self._outbox.put
        self.put_body = self._outbox.put_body
        self.put_packed = self._outbox.put_packed
        self.put_part = self._outbox.put_part
        self.drop_parts = self._outbox.drop_parts
        self._inbox = Inbox(hub.max_message, max(_INBOX, 2 * hub.max_message))
        self._unpacker = unpacker()
        self._turns = hub.turns
        self._paused = False
        self._ended = ""
        self._program: Program | None = None
        self.heard = True
        """Something arrived since the last look."""
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
        transport.set_write_buffer_limits(high=HIGH_WATER, low=0)

    # Octets.

    def data_received(self, data: bytes) -> None:
        if len(data) <= PIECE:
            self.understand(data)
        else:
            self._turns.take(self, data)

    def understand(self, data: bytes | memoryview) -> None:
        self.heard = True
        now = self._hub.clock()
        unpacked = self._unpacker
        handlers = self._handlers
        try:
            unpacked.feed(data)
            for message in unpacked:
                handlers[message[0]](message, now)
        except NotAllowed as error:
            self.end(str(error))
        except UNREADABLE as error:
            self.end(f"not understood: {why(error)}")
        self._flusher.flush()

    def connection_lost(self, error: Exception | None) -> None:
        self._turns.drop(self)
        self._detach(self._ended or (str(error) if error else ""))
        self._hub.closed(self)
        self._handlers.clear()  # they hold this connection, and its buffers, until a collection
        self._flusher.flush()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._ended and not self._transport.is_closing():
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self.flush()

    # Outlet.

    def overrun(self) -> None:
        # Not at once: whoever found out is in the middle of something.
        asyncio.get_running_loop().call_soon(self.end, "it does not read")

    def _wake(self) -> None:
        self._flusher.dirty.append(self)

    def flush(self) -> None:
        transport = self._transport
        if self._paused or transport.is_closing():
            return
        outbox = self._outbox
        while outbox.size and not self._paused:
            transport.write(outbox.take(READ))
        if self._ended and not outbox.size:
            transport.close()

    @property
    def queued(self) -> int:
        return self._outbox.size

    @property
    def program(self) -> Program | None:
        return self._program

    @property
    def topics(self) -> int:
        """How many topics the program subscribes to."""
        return len(self._program.topics) if self._program else 0

    @property
    def receiving(self) -> bool:
        """Part of a large body has come, and the rest has not."""
        return self._inbox.size > 0

    def end(self, reason: str) -> None:
        """Tell the program why, and close. What it does not read in time is lost."""
        if not self._ended:
            self._outbox.put((Op.CLOSE.value, reason[:MAX_REASON]))
            self._close(reason)

    def abort(self, reason: str) -> None:
        """Close at once."""
        self._ended = self._ended or reason
        self._transport.abort()

    def _close(self, reason: str) -> None:
        """Close behind what is queued. The program is gone now: it may never read that."""
        self._ended = self._ended or reason
        self._turns.drop(self)
        self._handlers[:] = [self._ignore] * 64
        self.pause_reading()
        self._hub.closing(self)
        self._detach(self._ended)
        self.flush()

    def _detach(self, reason: str) -> None:
        program, self._program = self._program, None
        if program is not None:
            self._hub.detached(program, self, reason)

    # Messages.

    def _on_hello(self, message: Message, now: float) -> None:
        _, magic, version, name = message[:4]
        if magic != MAGIC or type(name) is not str or self._program is not None:
            raise Malformed("not the hello of an Arke program")
        if version != VERSION:
            self.end(f"this relay speaks version {VERSION} of the protocol, not {version!r:.20}")
            return
        hub = self._hub
        if hub.exchange.router.draining:
            self.end("the relay is leaving")
            return
        program = self._program = hub.attached(name[:200], self)
        exchange, inbox = hub.exchange, self._inbox
        self._handle(Calls(program, inbox, exchange).handlers)
        self._handle(Casts(program, inbox, exchange).handlers)
        self._handle(Tunnels(program, exchange).handlers)
        self._handle(Registry(program, hub).handlers)
        self.put(
            (
                Op.WELCOME.value,
                VERSION,
                exchange.node,
                exchange.address,
                hub.network,
                hub.max_message,
            )
        )

    def _on_ping(self, message: Message, now: float) -> None:
        token = message[1]
        if type(token) is not int:
            raise Malformed("a token is a number")
        self.put((Op.PONG.value, token))

    def _on_pong(self, message: Message, now: float) -> None:
        """Being heard was all it was for."""

    def _on_close(self, message: Message, now: float) -> None:
        self._close("it left")

    def _on_chunk(self, message: Message, now: float) -> None:
        self._inbox.chunk(message[1], message[2], message[3])

    def _unknown(self, message: Message, now: float) -> None:
        if self._program is None and message[0] in _OPS:
            raise Malformed("it did not say hello first")
        raise Malformed(f"unknown operation {message[0]!r:.20}")

    def _ignore(self, message: Message, now: float) -> None:
        """Nothing that comes behind the end counts."""

    def _handle(self, handlers: Mapping[int, Handler]) -> None:
        for op, handler in handlers.items():
            self._handlers[op] = handler
