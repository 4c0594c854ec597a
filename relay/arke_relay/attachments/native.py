"""The native codec: one program's connection, its octets to calls on the exchange and back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from msgpack.exceptions import UnpackException

from arke.wire.bounds import (
    CHUNK,
    HIGH_WATER,
    LONGEST_CALL,
    MAX_HEADERS,
    MAX_REASON,
    MAX_TOPICS,
    READ,
    is_name,
    unpacker,
)
from arke.wire.chunks import Cast, Inbox, Outbox
from arke.wire.messages import MAGIC, VERSION, Failure, Op
from arke_relay.attachments.hub import Hub
from arke_relay.attachments.turns import PIECE
from arke_relay.core.calls import Call
from arke_relay.core.exchange import NotAllowed
from arke_relay.core.parties import Message, Program

_OUTBOX = 64 * 1024 * 1024
"""Octets a program may leave unread before what comes next is dropped, and counted."""

_INBOX = 64 * 1024 * 1024
_LONGEST = int(LONGEST_CALL * 1000)

_CHANGES = 2.0 * MAX_TOPICS
_CHANGES_PER_SECOND = 1_000.0
"""Registrations and subscriptions of one program: all at once when it attaches, then some."""

_MALFORMED = (ValueError, TypeError, LookupError, UnpackException)

_NAMELESS = "a name is 1 to 255 octets of text"


class NativeConnection(asyncio.Protocol):
    """A program that speaks the native protocol; the outlet of its Program."""

    def __init__(self, hub: Hub, transport: asyncio.Transport) -> None:
        self._hub = hub
        self._router = hub.exchange.router
        self._request = self._router.request
        self._reply = self._router.reply
        self._clusters = hub.exchange.directory.clusters
        self._topics = hub.exchange.directory.topics
        self._casts = hub.exchange.casts
        self._transport = transport
        self._flusher = hub.flusher
        self._outbox = Outbox(_OUTBOX, self._wake, self.flush)
        # The outlet's part of this is the outbox itself: a call less for every message.
        self.put = self._outbox.put
        self.put_body = self._outbox.put_body
        self.put_packed = self._outbox.put_packed
        self._inbox = Inbox(hub.max_message, max(_INBOX, 2 * hub.max_message))
        self._unpacker = unpacker()
        self._turns = hub.turns
        self._changes = _CHANGES
        self._changed = 0.0
        self._paused = False
        self._ended = ""
        self._program: Program | None = None
        self.heard = True
        """Something arrived since the last look."""
        self._handlers: list[Callable[[Message, float], None]] = [self._unknown] * 64
        for op, handler in {
            Op.HELLO: self._on_hello,
            Op.PING: self._on_ping,
            Op.PONG: self._on_pong,
            Op.CLOSE: self._on_close,
            Op.CHUNK: self._on_chunk,
            Op.REGISTER: self._on_register,
            Op.LEAVE: self._on_leave,
            Op.SUBSCRIBE: self._on_subscribe,
            Op.UNSUBSCRIBE: self._on_unsubscribe,
            Op.REQUEST: self._on_request,
            Op.CANCEL: self._on_cancel,
            Op.BROADCAST: self._on_broadcast,
            Op.PUBLISH: self._on_publish,
            Op.STATUS: self._on_status,
            Op.REPLY: self._on_reply,
            Op.FAULT: self._on_fault,
            Op.REFUSED: self._on_refused,
        }.items():
            self._handlers[op] = handler
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
        except _MALFORMED as error:
            self.end(f"not understood: {_why(error)}")
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
            raise ValueError("not the hello of an Arke program")
        if version != VERSION:
            self.end(f"this relay speaks version {VERSION} of the protocol, not {version!r:.20}")
            return
        hub = self._hub
        if self._router.draining:
            self.end("the relay is leaving")
            return
        self._program = hub.attached(name[:200], self)
        self.put(
            (
                Op.WELCOME.value,
                VERSION,
                hub.exchange.node,
                hub.address,
                hub.network,
                hub.max_message,
            )
        )

    def _on_ping(self, message: Message, now: float) -> None:
        token = message[1]
        if type(token) is not int:
            raise ValueError("a token is a number")
        self.put((Op.PONG.value, token))

    def _on_pong(self, message: Message, now: float) -> None:
        """Being heard was all it was for."""

    def _on_close(self, message: Message, now: float) -> None:
        self._close("it left")

    def _on_chunk(self, message: Message, now: float) -> None:
        self._inbox.chunk(message[1], message[2], message[3])

    def _on_register(self, message: Message, now: float) -> None:
        self._change(now)
        self._hub.registered(self._known(), _name(message[1]), now)

    def _on_leave(self, message: Message, now: float) -> None:
        self._hub.left(self._known())

    def _on_subscribe(self, message: Message, now: float) -> None:
        self._change(now)
        self._hub.subscribe(self._known(), _name(message[1]))

    def _on_unsubscribe(self, message: Message, now: float) -> None:
        self._hub.unsubscribe(self._known(), _name(message[1]))

    def _change(self, now: float) -> None:
        """Count what every peer must be told. Raises NotAllowed when it is too much."""
        allowed = self._changes + (now - self._changed) * _CHANGES_PER_SECOND
        self._changes = min(_CHANGES, allowed) - 1
        self._changed = now
        if self._changes < 0:
            raise NotAllowed("it comes and goes too often")

    def _on_request(self, message: Message, now: float) -> None:
        _, call, cluster, body, timeout, idempotent, headers = message
        if type(call) is not int or type(timeout) is not int or timeout < 0:
            raise ValueError("a request has a number and a time-out in milliseconds")
        timeout = min(timeout, _LONGEST)
        if cluster not in self._clusters:
            _name(cluster)
        if headers is not None:
            _check_headers(headers)
        if type(body) is not bytes:
            body = self._inbox.body(body)
            if body is None:
                text = "no room to join the request"
                self.put((Op.FAILED.value, call, Failure.OVERLOADED.value, text))
                return
        program = self._program or self._known()
        deadline = now + timeout / 1000
        again = idempotent is True
        request = self._request
        request(
            Call(program, call, cluster, body, now, deadline, again, program.sender, headers), now
        )

    def _on_cancel(self, message: Message, now: float) -> None:
        self._router.cancel(self._known(), message[1])

    def _on_broadcast(self, message: Message, now: float) -> None:
        _, cluster, body, headers = message
        if cluster not in self._clusters:
            _name(cluster)
        if headers is not None or type(body) is not bytes:
            body = self._cast_body(body, headers)
        if body is not None:
            self._casts.broadcast(self._program or self._known(), cluster, body, headers)

    def _on_publish(self, message: Message, now: float) -> None:
        _, topic, body, headers = message
        if topic not in self._topics:
            _name(topic)
        if headers is not None or type(body) is not bytes:
            body = self._cast_body(body, headers)
        if body is not None:
            self._casts.publish(self._program or self._known(), topic, body, headers)

    def _on_status(self, message: Message, now: float) -> None:
        call = message[1]
        if type(call) is not int:
            raise ValueError("a call is a number")
        self._known()
        document = self._hub.document(now)
        if len(document) > max(CHUNK, self._hub.max_message):
            text = f"a status of {len(document)} bytes is over the relay's limit (-max-message)"
            self.put((Op.FAILED.value, call, Failure.TOO_LARGE.value, text))
        elif not self.put_body((Op.REPLY.value, call, document), 2):
            self._hub.exchange.counters.drops["reply_without_room"] += 1

    def _on_reply(self, message: Message, now: float) -> None:
        _, call, body = message
        program = self._program or self._known()
        if type(body) is not bytes:
            body = self._inbox.body(body)
            if body is None:
                text = "the relay had no room to join the answer"
                self._router.fault(program, call, "Overloaded", text, now)
                return
        reply = self._reply
        reply(program, call, body, now)

    def _on_fault(self, message: Message, now: float) -> None:
        _, call, kind, text = message
        if type(kind) is not str or type(text) is not str:
            raise ValueError("a fault has a type and a text")
        self._router.fault(self._known(), call, kind, text, now)

    def _on_refused(self, message: Message, now: float) -> None:
        _, call, reason = message
        if type(reason) is not str:
            raise ValueError("a refusal has a reason")
        self._router.refused(self._known(), call, reason[:MAX_REASON], now)

    def _unknown(self, message: Message, now: float) -> None:
        raise ValueError(f"unknown operation {message[0]!r:.20}")

    def _known(self) -> Program:
        """The program, once it has said hello."""
        program = self._program
        if program is None:
            raise ValueError("it did not say hello first")
        return program

    def _cast_body(self, body: Any, headers: Any) -> Cast | None:
        if headers is not None:
            _check_headers(headers)
        cast = self._inbox.cast(body)
        if cast is None:
            self._hub.exchange.counters.drops["cast_too_large_for_now"] += 1
        return cast


def _why(error: Exception) -> str:
    """What to tell about bytes that cannot be understood; Python's own words help nobody."""
    return (isinstance(error, ValueError) and str(error)) or "a malformed message"


def _name(name: object) -> str:
    if not is_name(name):
        raise ValueError(_NAMELESS)
    return str(name)


def _check_headers(headers: object) -> None:
    if type(headers) is not dict:
        raise ValueError("headers are a map")
    size = 0
    for name, value in cast("dict[object, object]", headers).items():
        if type(name) is not str or type(value) is not str:
            raise ValueError("headers are text")
        size += len(name.encode()) + len(value.encode())
    if size > MAX_HEADERS:
        raise ValueError(f"headers over {MAX_HEADERS} octets")
