"""One end of a tunnel: an ordered stream of messages with credit-based flow control.

Each end grants the other credit, in bytes, as its reader consumes messages. Small messages share
the data of one DATA message, as MessagePack binaries; larger ones are sent in chunks. While a
message larger than the window is reassembled, its receiver grants further credit, up to the largest
message it accepts.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from msgpack import Packer

from arke.errors import MessageTooLarge, TunnelClosed
from arke.runtime.arguments import check_body
from arke.runtime.error_text import describe_error, error_type
from arke.runtime.relay_connection import RelayConnection
from arke.runtime.tunnel_settings import TunnelSettings
from arke.runtime.tunnel_state import (
    FINISHED,
    RECEIVING,
    SENDABLE,
    TRANSITIONS,
    TunnelEvent,
    TunnelState,
)
from arke.wire.limits import CHUNK, FANOUT_BATCH
from arke.wire.messages import Op, TunnelClose
from arke.wire.tunnel_batch import TunnelBatchDecoder

_DATA = Op.DATA.value
_CREDIT = Op.CREDIT.value
_END = Op.END.value

_MAX_SMALL = 4096  # bytes of a message that shares its data with others
_BINARY_HEADER = 5  # bytes that MessagePack puts before a binary, at most
_YIELD_AFTER = 256 * 1024  # bytes after which a sender lets other tasks run
_CLOSE_TIMEOUT = 30.0  # seconds that close waits for senders of this end
_MAX_ERROR_TEXT = 4096  # characters


class Tunnel:
    """A stream of messages, made by `mesh.tunnel` or passed to a service's `on_tunnel` handler.

    One task at a time may receive; any number may send. Leaving the `async with` block, or
    returning from the handler, closes the tunnel: messages sent before are still delivered.
    """

    def __init__(
        self,
        connection: RelayConnection,
        number: int,
        settings: TunnelSettings,
        on_finished: Callable[[int], None],
    ) -> None:
        self.sender = settings.sender
        """The program that opened the tunnel, as `node/number`; empty at the opening end."""
        self.headers = settings.headers
        """The headers that the opening program sent."""
        self.on_peer_closed: Callable[[], object] | None = None
        """Called when the other end stops reading, or the tunnel fails."""
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._number = number
        self._window = settings.window
        self._max_receive = settings.max_receive
        self._max_send = settings.max_send
        self._on_finished = on_finished
        self._state = TunnelState.OPEN
        self._error: TunnelClosed | None = None  # why the state is CLOSED

        self._pack = Packer().pack
        self._max_small = min(_MAX_SMALL, self._max_send)
        self._credit = 0
        self._batch: list[bytes] = []  # small messages that share the next DATA message
        self._batch_size = 0
        self._sent_since_yield = 0
        self._slow_path = False  # send must check the state, wait for its turn, or yield
        self._send_lock = asyncio.Lock()
        self._credit_waiter: asyncio.Future[None] | None = None

        self._decoder = TunnelBatchDecoder()
        # Received data: the data, whether it is a batch, and how much of it was granted again.
        self._received: deque[tuple[bytes, bool, int]] = deque()
        self._messages: deque[bytes] = deque()
        self._partial = bytearray()
        self._partial_total = 0
        self._partial_regranted = 0
        self._outstanding_credit = self._window  # granted to the other end and not used
        self._consumed = 0  # bytes to grant again
        self._read_waiter: asyncio.Future[None] | None = None
        connection.send((_CREDIT, number, self._window))

    def __repr__(self) -> str:
        opened_by = f" opened by {self.sender}" if self.sender else ""
        return f"<arke.Tunnel {self._number} {self._state.name.lower()}{opened_by}>"

    @property
    def peer_reads(self) -> bool:
        """Whether the other end still reads what is sent."""
        return self._state not in {TunnelState.PEER_CLOSED, TunnelState.CLOSED}

    # Sending.

    async def send(self, message: bytes) -> None:
        """Send one message; waits while the other end has not granted enough credit.

        Raises TunnelClosed, and MessageTooLarge for more than the other end accepts. A large
        message whose sending is cancelled is never delivered; later messages are.
        """
        if type(message) is not bytes:
            check_body(message, "a message")
        size = len(message)
        if self._slow_path or size > self._max_small or size + _BINARY_HEADER > self._credit:
            await self._send_slowly(message)
            return
        self._add_to_batch(message)

    def close_send(self) -> None:
        """Half-close: send nothing more. The other end's iteration ends after what was sent."""
        if self._state in SENDABLE:
            self._flush()
            self._advance(TunnelEvent.CLOSE_SEND)
            message = (_END, self._number, TunnelClose.SEND_CLOSED.value, "", "")
            self._connection.send_in_flow(message, self)

    async def close(self) -> None:
        """Close both directions. Sent messages are delivered; later arrivals are dropped."""
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT), self._send_lock:
                self._close()
        except TimeoutError:
            self.abort(f"the other end read nothing for {_CLOSE_TIMEOUT:g} s")

    def _close(self) -> None:
        if self._state is not TunnelState.CLOSED:
            self._flush()
            if self.peer_reads:
                message = (_END, self._number, TunnelClose.CLOSED.value, "", "")
                self._connection.send_in_flow(message, self)
            self._set_closed(TunnelClosed("the tunnel was closed at this end"))

    def abort(self, text: str, error_type: str = "") -> None:
        """Close both directions at once. Data in transit may be lost; the other end gets `text`."""
        if self._state is not TunnelState.CLOSED:
            self._batch.clear()
            self._connection.drop_flow(self)
            end = TunnelClose.ABORTED.value
            message = (_END, self._number, end, error_type, text[:_MAX_ERROR_TEXT])
            self._connection.send_in_flow(message, self)
            self._set_closed(TunnelClosed(text))

    def _add_to_batch(self, message: bytes) -> None:
        pack = self._pack
        data = pack(message)
        if not self._batch:
            self._loop.call_soon(self._flush)
        self._batch.append(data)
        size = len(data)
        self._credit -= size
        self._batch_size += size
        if self._batch_size >= FANOUT_BATCH:
            self._flush()

    def _flush(self) -> None:
        batch = self._batch
        if batch:
            data = batch[0] if len(batch) == 1 else b"".join(batch)
            batch.clear()
            self._batch_size = 0
            self._send_data(None, data)

    def _send_data(self, total: int | None, data: bytes) -> None:
        send_in_flow = self._connection.send_in_flow
        send_in_flow((_DATA, self._number, total, data), self)
        self._sent_since_yield += len(data)
        if self._sent_since_yield >= _YIELD_AFTER:
            self._slow_path = True

    async def _send_slowly(self, message: bytes) -> None:
        async with self._send_lock:
            self._check_sendable()
            size = len(message)
            if size > self._max_send:
                raise MessageTooLarge(
                    f"the message has {size} bytes; the other end accepts {self._max_send}"
                )
            await self._yield_to_others()
            self._slow_path = True
            try:
                if size <= _MAX_SMALL:
                    await self._wait_for_credit(size + _BINARY_HEADER)
                    self._add_to_batch(message)
                else:
                    await self._send_chunks(message)
            finally:
                must_yield = self._sent_since_yield >= _YIELD_AFTER
                self._slow_path = self._state not in SENDABLE or must_yield

    async def _send_chunks(self, message: bytes) -> None:
        self._flush()
        # Half of the window is granted sooner or later, whatever the reader keeps unread.
        chunk_size = min(CHUNK, self._window // 2)
        for offset in range(0, len(message), chunk_size):
            chunk = message[offset : offset + chunk_size]
            await self._wait_for_credit(len(chunk))
            self._credit -= len(chunk)
            self._send_data(0 if offset else len(message), chunk)
            await self._yield_to_others()

    async def _yield_to_others(self) -> None:
        if self._sent_since_yield >= _YIELD_AFTER:
            self._sent_since_yield = 0
            await asyncio.sleep(0)

    async def _wait_for_credit(self, size: int) -> None:
        """Wait until `size` bytes may be sent. Raises TunnelClosed."""
        # Checked first: the tunnel may have closed while the sender yielded.
        self._check_sendable()
        while self._credit < size:
            self._credit_waiter = self._loop.create_future()
            try:
                await self._credit_waiter
            finally:
                self._credit_waiter = None
            self._check_sendable()

    def _check_sendable(self) -> None:
        if self._error is not None:
            raise self._error
        if self._state is TunnelState.PEER_CLOSED:
            raise TunnelClosed("the tunnel was closed at the other end")
        if self._state not in SENDABLE:
            raise TunnelClosed("the sending side was closed at this end")

    # Receiving.

    async def recv(self) -> bytes:
        """Return the next message. Raises TunnelClosed after the last one, or for a failure."""
        if not self._messages and not await self._receive():
            raise self._error or TunnelClosed("the other end has sent all messages")
        return self._messages.popleft()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._messages and not await self._receive():
            if self._error is not None:
                raise self._error
            raise StopAsyncIteration
        return self._messages.popleft()

    async def _receive(self) -> bool:
        """Wait until there is a message. False: no more messages will arrive."""
        while not self._messages:
            if self._received:
                self._unpack(*self._received.popleft())
                continue
            if self._state not in RECEIVING:
                return False
            if self._read_waiter is not None:
                raise RuntimeError("one task at a time may receive from a tunnel")
            self._grant_for_partial()
            self._read_waiter = self._loop.create_future()
            try:
                await self._read_waiter
            finally:
                self._read_waiter = None
        return True

    def _unpack(self, data: bytes, is_batch: bool, regranted: int) -> None:
        """Take the messages out of received data, and grant its size again."""
        if is_batch:
            messages = self._decoder.decode(data)
            if messages is None:
                self.abort("received malformed tunnel data")
                return
            self._messages.extend(messages)
        else:
            self._messages.append(data)
        self._consumed += len(data) - regranted
        if self._consumed >= self._window // 4:
            self._grant(self._consumed)
            self._consumed = 0

    def _grant(self, size: int) -> None:
        self._outstanding_credit += size
        if self._state in RECEIVING:
            self._connection.send((_CREDIT, self._number, size))

    def _grant_for_partial(self) -> None:
        """Grant credit for a partial message that the window is too small for."""
        missing = self._partial_total - len(self._partial)
        if missing and self._outstanding_credit < min(missing, self._window // 2):
            extra = self._window // 2
            self._partial_regranted += extra
            self._grant(extra)

    # Messages of the other end.

    def on_data(self, total: int | None, data: bytes) -> None:
        """Handle DATA."""
        self._outstanding_credit -= len(data)
        if not data or self._outstanding_credit < 0:
            # Without this check the other end could fill this program's memory.
            self.abort("the other end sent empty data, or more than it had credit for")
            return
        if self._partial and total != 0:
            self._drop_partial()
        if total is None:
            self._received.append((data, True, 0))
        elif total == len(data):
            self._received.append((data, False, 0))
        else:
            if total > self._max_receive:
                self.abort(f"a message has {total} bytes; this end accepts {self._max_receive}")
                return
            self._partial_total = total or self._partial_total
            self._partial += data
            if len(self._partial) < self._partial_total:
                if self._read_waiter is not None and not self._received:
                    self._grant_for_partial()
                return
            if len(self._partial) > self._partial_total:
                self.abort("a message is longer than announced")
                return
            self._received.append((bytes(self._partial), False, self._partial_regranted))
            self._partial, self._partial_total, self._partial_regranted = bytearray(), 0, 0
        _wake(self._read_waiter)

    def _drop_partial(self) -> None:
        """Drop a message whose sending was cancelled; its bytes are granted again."""
        self._consumed += len(self._partial) - self._partial_regranted
        self._partial, self._partial_total, self._partial_regranted = bytearray(), 0, 0

    def on_credit(self, size: int) -> None:
        """Handle CREDIT."""
        self._credit += size
        _wake(self._credit_waiter)

    def on_end(self, close: int, error_type: str, text: str) -> None:
        """Handle END."""
        if close == TunnelClose.ABORTED:
            self.fail(TunnelClosed(text, error_type))
        elif close == TunnelClose.CLOSED:
            self._advance(TunnelEvent.PEER_CLOSE)
            if self.on_peer_closed:
                self.on_peer_closed()
        else:
            self._advance(TunnelEvent.PEER_CLOSE_SEND)

    def fail(self, error: TunnelClosed) -> None:
        """Close both directions with an error. Received messages can still be read."""
        if self._state is not TunnelState.CLOSED:
            self._set_closed(error)
            if self.on_peer_closed:
                self.on_peer_closed()

    # State.

    def _advance(self, event: TunnelEvent) -> None:
        """Move to the next state, and wake the tasks that wait for data or credit."""
        self._state = TRANSITIONS[self._state].get(event, self._state)
        if self._state not in SENDABLE:
            self._slow_path = True
        _wake(self._read_waiter)
        _wake(self._credit_waiter)
        if self._state in FINISHED:
            self._on_finished(self._number)

    def _set_closed(self, error: TunnelClosed) -> None:
        self._error = error
        self._advance(TunnelEvent.CLOSE)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            await self.close()
        else:
            self.abort(describe_error(error), error_type(error))


def _wake(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
