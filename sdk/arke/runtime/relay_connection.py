"""One connection to the relay: decode what it sends, queue and write what is sent to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final, cast

from arke.errors import ProtocolError
from arke.values import Node
from arke.wire.limits import (
    HIGH_WATER,
    LARGEST_MAX_MESSAGE,
    MAX_MESSAGE,
    READ_SIZE,
    unpacker,
)
from arke.wire.liveness import Liveness
from arke.wire.malformed import DECODE_ERRORS, Malformed
from arke.wire.messages import MAGIC, VERSION, Op
from arke.wire.outbox import Outbox
from arke.wire.reassembly import Reassembler

_CHECK_INTERVAL: Final = 0.5
"""Seconds between liveness checks. A ping is sent when the relay was silent for one interval."""

_SILENCE_TIMEOUT: Final = 2.5
"""Seconds of silence after which the relay is considered dead: it never blocks for long."""

_OUTBOX: Final = 64 * 1024 * 1024

Message = tuple[Any, ...]
MessageHandler = Callable[[Message, "RelayConnection"], None]


class RelayConnection:
    """A connection to the relay, as an asyncio protocol. After its end it is not used again.

    `welcomed` becomes the Node after the handshake; `closed` becomes the reason why the connection
    was closed. `on_writable` is called when a congested connection accepts data again.

    `send`, `send_body`, `send_fanout` and `send_in_flow` queue messages: they are the `put…`
    methods of the outbox, bound here to save a call for each message.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        handlers: dict[int, MessageHandler],
        on_writable: Callable[[], None],
        program: str,
        identity: bytes,
    ) -> None:
        self._loop = loop
        self._on_writable = on_writable
        self._program = program
        self._identity = identity
        self._transport: asyncio.Transport | None = None
        self._unpacker = unpacker()
        self._outbox = Outbox(_OUTBOX, self._wake, self._flush)
        self.send = self._outbox.put
        self.send_body = self._outbox.put_body
        self.send_fanout = self._outbox.put_fanout
        self.send_in_flow = self._outbox.put_in_flow
        self.drop_flow = self._outbox.drop_flow
        self._reassembler = Reassembler(MAX_MESSAGE, _OUTBOX)
        self._had_traffic = True
        self._liveness = Liveness(_SILENCE_TIMEOUT, _CHECK_INTERVAL, time.monotonic())
        self._timer: asyncio.TimerHandle | None = None
        self._last_token = 0
        self._pings: dict[int, asyncio.Future[None]] = {}
        self._room_waiters: list[asyncio.Future[None]] = []
        self._reason = ""
        self.now = time.monotonic()
        """When the data being handled arrived: one clock reading for all its messages."""
        self.max_message = MAX_MESSAGE
        self.congested = False
        """Whether the relay reads more slowly than this program writes."""
        self.last_accepted: int | None = None
        """The last request_id that the relay accepted, once it has announced its shutdown."""
        self._closing = False
        self.welcomed: asyncio.Future[Node] = loop.create_future()
        self.closed: asyncio.Future[str] = loop.create_future()
        self._handlers: list[MessageHandler] = [self._unknown] * 64
        own = {
            Op.WELCOME: self._on_welcome,
            Op.PING: self._on_ping,
            Op.PONG: self._on_pong,
            Op.CHUNK: self._on_chunk,
            Op.CLOSE: self._on_close,
        }
        for op, handler in (handlers | own).items():
            self._handlers[op] = handler

    @property
    def descriptor(self) -> int:
        """The descriptor of the socket; -1 when it is closed."""
        socket = self._transport.get_extra_info("socket") if self._transport else None
        return int(socket.fileno()) if socket is not None else -1

    # The asyncio protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=HIGH_WATER, low=0)
        self._timer = self._loop.call_later(_CHECK_INTERVAL, self._check_liveness)
        self.send((Op.HELLO.value, MAGIC, VERSION, self._program, self._identity))

    def data_received(self, data: bytes) -> None:
        self._had_traffic = True
        self.now = time.monotonic()
        unpacked = self._unpacker
        handlers = self._handlers
        try:
            unpacked.feed(data)
            for message in unpacked:
                handlers[message[0]](message, self)
        except DECODE_ERRORS as error:
            self.abort(f"the relay sent a malformed message: {error}")

    def eof_received(self) -> bool:
        """Let the loop close the transport when the relay closes its side."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()
        reason = self._reason or (str(error) if error else "the relay closed the connection")
        if not self.welcomed.done():
            self.welcomed.set_exception(ProtocolError(reason))
            self.welcomed.exception()  # without a waiter, asyncio would log it as never retrieved
        for future in (*self._pings.values(), *self._room_waiters):
            if not future.done():
                future.set_result(None)
        self._pings.clear()
        self._room_waiters.clear()
        # They form reference cycles: the buffers would stay until the next garbage collection.
        self._handlers.clear()
        self._outbox.close()
        self.closed.set_result(reason)

    def pause_writing(self) -> None:
        self.congested = True

    def resume_writing(self) -> None:
        self.congested = False
        self._flush()
        if not self.congested:
            waiters, self._room_waiters = self._room_waiters, []
            for future in waiters:
                if not future.done():
                    future.set_result(None)
            self._on_writable()

    # Messages.

    def set_handler(self, op: int, handler: MessageHandler) -> None:
        """Register the handler of one operation."""
        if self._handlers:
            self._handlers[op] = handler

    def fanout_bodies(self, body: object) -> tuple[bytes, ...]:
        """Return the bodies of a broadcast or event; none if a large one was dropped."""
        bodies = self._reassembler.take_fanout(body)
        if bodies is None:
            return ()
        return bodies if isinstance(bodies, tuple) else (bytes(bodies),)

    def body(self, message: Message, index: int) -> bytes | None:
        """Return the body of a message, joined from chunks; None if a large one was dropped."""
        body = message[index]
        if type(body) is bytes:
            return body
        joined = self._reassembler.take_body(body)
        return None if joined is None else bytes(joined)

    async def wait_for_room(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109
        """Wait until the connection is no longer congested, or closed.

        Returns False if that takes longer than `timeout` seconds.
        """
        if not self.congested or self.closed.done():
            return True
        future = self._loop.create_future()
        self._room_waiters.append(future)
        done, _ = await asyncio.wait((future,), timeout=timeout)
        return bool(done)

    async def synchronize(self) -> None:
        """Wait until the relay has handled everything sent before, or the connection is closed.

        It sends a ping: the relay's pong comes after everything before it.
        """
        if self.closed.done():
            return
        self._last_token += 1
        token = self._last_token
        future = self._pings[token] = self._loop.create_future()
        self.send((Op.PING.value, token))
        try:
            await future
        finally:
            self._pings.pop(token, None)

    def close(self) -> None:
        """Send what is queued, then close."""
        self._reason = self._reason or "closed by this program"
        self._closing = True
        self._flush()

    def abort(self, reason: str) -> None:
        """Close at once and drop what is queued."""
        self._reason = self._reason or reason
        if self._transport:
            self._transport.abort()

    def _wake(self) -> None:
        self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        outbox = self._outbox
        while outbox.size and not self.congested:
            transport.write(outbox.take(READ_SIZE))
        if self._closing and not outbox.size:
            transport.close()

    def _check_liveness(self) -> None:
        now = time.monotonic()
        if self._had_traffic:
            self._had_traffic = False
            self._liveness.on_traffic(now)
        if self._liveness.timed_out(now):
            self.abort(f"the relay was silent for {_SILENCE_TIMEOUT} s")
            return
        if self._liveness.silence(now) >= _CHECK_INTERVAL:
            self.send((Op.PING.value, 0))
        self._timer = self._loop.call_later(_CHECK_INTERVAL, self._check_liveness)

    # Operations that every connection handles itself.

    def _on_welcome(self, message: Message, connection: RelayConnection) -> None:
        _, version, node, address, network, max_message = message[:6]
        if version != VERSION:
            raise ValueError(f"the relay uses protocol version {version}, this program {VERSION}")
        if self.welcomed.done():
            raise Malformed("a second WELCOME")
        if type(max_message) is not int or not 0 < max_message <= LARGEST_MAX_MESSAGE:
            raise Malformed(f"a message limit must be 1 to {LARGEST_MAX_MESSAGE} bytes")
        self.max_message = max_message
        self._reassembler = Reassembler(max_message, max(_OUTBOX, 2 * max_message))
        self.welcomed.set_result(Node(node, address, network))

    def _on_ping(self, message: Message, connection: RelayConnection) -> None:
        self.send((Op.PONG.value, message[1]))

    def _on_pong(self, message: Message, connection: RelayConnection) -> None:
        future = self._pings.get(message[1])
        if future and not future.done():
            future.set_result(None)

    def _on_chunk(self, message: Message, connection: RelayConnection) -> None:
        self._reassembler.add_chunk(message[1], message[2], message[3])

    def _on_close(self, message: Message, connection: RelayConnection) -> None:
        self._reason = self._reason or str(message[1])

    def _unknown(self, message: Message, connection: RelayConnection) -> None:
        raise ValueError(f"unknown operation {message[0]}")
