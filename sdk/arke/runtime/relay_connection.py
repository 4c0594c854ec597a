"""One connection to the relay: octets in, messages out, and the other way round."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final, cast

from arke.errors import ProtocolError
from arke.values import Node
from arke.wire.limits import HIGH_WATER, MAX_MESSAGE, READ_SIZE, unpacker
from arke.wire.liveness import Liveness
from arke.wire.malformed import DECODE_ERRORS
from arke.wire.messages import MAGIC, VERSION, Op
from arke.wire.outbox import Outbox
from arke.wire.reassembly import Reassembler

_BEAT: Final = 0.5
"""Seconds between two looks at the relay's life; a quiet link carries a ping each second beat."""

_PATIENCE: Final = 2.5
"""Seconds of silence after which a relay is given up: it never computes for long."""

_OUTBOX: Final = 64 * 1024 * 1024

Message = tuple[Any, ...]
Handler = Callable[[Message, "RelayLink"], None]


class RelayLink:
    """A connection that ends once, and is then replaced by another; a protocol of the loop's.

    `welcomed` becomes the Node after the handshake; `closed` becomes the reason why the link ended.
    `relieved` is called when a congested link has room again. `send`, `send_body`, `send_cast`
    and `send_part` queue messages as an Outbox's `put…` do, and are just these: a call less for
    every message.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        handlers: dict[int, Handler],
        relieved: Callable[[], None],
        program: str,
        identity: bytes,
    ) -> None:
        self._loop = loop
        self._relieved = relieved
        self._program = program
        self._identity = identity
        self._transport: asyncio.Transport | None = None
        self._unpacker = unpacker()
        self._outbox = Outbox(_OUTBOX, self._wake, self._flush)
        self.send = self._outbox.put
        self.send_body = self._outbox.put_body
        self.send_cast = self._outbox.put_fanout
        self.send_part = self._outbox.put_in_flow
        self.drop_flow = self._outbox.drop_flow
        self._inbox = Reassembler(MAX_MESSAGE, _OUTBOX)
        self._traffic = True
        self._liveness = Liveness(_PATIENCE, _BEAT, time.monotonic())
        self._timer: asyncio.TimerHandle | None = None
        self._tokens = 0
        self._pings: dict[int, asyncio.Future[None]] = {}
        self._room: list[asyncio.Future[None]] = []
        self._reason = ""
        self.now = time.monotonic()
        """When the octets being handled arrived; one look at the clock serves all of them."""
        self.max_message = MAX_MESSAGE
        self.congested = False
        """The relay reads more slowly than this program writes."""
        self.last_accepted: int | None = None
        """The last call that the relay accepted, once it has said that it is leaving."""
        self._last_words = False
        self.welcomed: asyncio.Future[Node] = loop.create_future()
        self.closed: asyncio.Future[str] = loop.create_future()
        self._handlers: list[Handler] = [self._unknown] * 64
        own = {
            Op.WELCOME: self._on_welcome,
            Op.PING: self._on_ping,
            Op.PONG: self._on_pong,
            Op.CHUNK: self._on_chunk,
            Op.CLOSE: self._on_close,
        }
        for op, handler in (handlers | own).items():
            self._handlers[op] = handler

    # Octets.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=HIGH_WATER, low=0)
        self._timer = self._loop.call_later(_BEAT, self._beat)
        self.send((Op.HELLO.value, MAGIC, VERSION, self._program, self._identity))

    def data_received(self, data: bytes) -> None:
        self._traffic = True
        self.now = time.monotonic()
        unpacked = self._unpacker
        handlers = self._handlers
        try:
            unpacked.feed(data)
            for message in unpacked:
                handlers[message[0]](message, self)
        except DECODE_ERRORS as error:
            self.abort(f"the relay sent what cannot be understood: {error}")

    def eof_received(self) -> bool:
        """The relay says no more: nor does the loop, then."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()
        reason = self._reason or (str(error) if error else "the relay closed the connection")
        if not self.welcomed.done():
            self.welcomed.set_exception(ProtocolError(reason))
            self.welcomed.exception()  # whoever waits is told; nobody has to
        for future in (*self._pings.values(), *self._room):
            if not future.done():
                future.set_result(None)
        self._pings.clear()
        self._room.clear()
        # They hold this link, and its buffers, until a collection.
        self._handlers.clear()
        self._outbox.close()
        self.closed.set_result(reason)

    def pause_writing(self) -> None:
        self.congested = True

    def resume_writing(self) -> None:
        self.congested = False
        self._flush()
        if not self.congested:
            waiting, self._room = self._room, []
            for future in waiting:
                if not future.done():
                    future.set_result(None)
            self._relieved()

    # Messages.

    def handle(self, op: int, handler: Handler) -> None:
        """Hand messages of one more kind to `handler`."""
        if self._handlers:
            self._handlers[op] = handler

    def casts(self, body: object) -> tuple[bytes, ...]:
        """The bodies that one cast carries; none if there was no room for it."""
        cast = self._inbox.take_fanout(body)
        if cast is None:
            return ()
        return cast if isinstance(cast, tuple) else (bytes(cast),)

    def body(self, message: Message, at: int) -> bytes | None:
        """The body of a message, joined if it came in chunks; None if there was no room for it."""
        body = message[at]
        if type(body) is bytes:
            return body
        joined = self._inbox.take_body(body)
        return None if joined is None else bytes(joined)

    async def room(self, limit: float | None = None) -> bool:
        """Wait until the relay has read enough for more to be queued, or the link has ended.

        False: that did not come within `limit` seconds.
        """
        if not self.congested or self.closed.done():
            return True
        future = self._loop.create_future()
        self._room.append(future)
        done, _ = await asyncio.wait((future,), timeout=limit)
        return bool(done)

    async def settled(self) -> None:
        """Wait until the relay has handled everything sent so far, or the link has ended."""
        if self.closed.done():
            return
        self._tokens += 1
        token = self._tokens
        future = self._pings[token] = self._loop.create_future()
        self.send((Op.PING.value, token))
        try:
            await future
        finally:
            self._pings.pop(token, None)

    def close(self) -> None:
        """Send what is queued, then close."""
        self._reason = self._reason or "closed by this program"
        self._last_words = True
        self._flush()

    def abort(self, reason: str) -> None:
        """Close at once; what is queued is lost."""
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
        if self._last_words and not outbox.size:
            transport.close()

    def _beat(self) -> None:
        now = time.monotonic()
        if self._traffic:
            self._traffic = False
            self._liveness.on_traffic(now)
        if self._liveness.timed_out(now):
            self.abort(f"the relay has been silent for {_PATIENCE} s")
            return
        if self._liveness.silence(now) >= _BEAT:
            self.send((Op.PING.value, 0))
        self._timer = self._loop.call_later(_BEAT, self._beat)

    # What every link understands by itself.

    def _on_welcome(self, message: Message, link: RelayLink) -> None:
        _, version, node, address, network, largest = message[:6]
        if version != VERSION:
            raise ValueError(f"it speaks version {version}, this program version {VERSION}")
        self.max_message = largest
        self._inbox = Reassembler(largest, max(_OUTBOX, 2 * largest))
        if not self.welcomed.done():
            self.welcomed.set_result(Node(node, address, network))

    def _on_ping(self, message: Message, link: RelayLink) -> None:
        self.send((Op.PONG.value, message[1]))

    def _on_pong(self, message: Message, link: RelayLink) -> None:
        future = self._pings.get(message[1])
        if future and not future.done():
            future.set_result(None)

    def _on_chunk(self, message: Message, link: RelayLink) -> None:
        self._inbox.add_chunk(message[1], message[2], message[3])

    def _on_close(self, message: Message, link: RelayLink) -> None:
        self._reason = self._reason or str(message[1])

    def _unknown(self, message: Message, link: RelayLink) -> None:
        raise ValueError(f"unknown operation {message[0]}")
