"""A tunnel end as in the Iris bindings: it counts allowances, and splits and joins messages."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from support.iris_packets import Op, ProtocolViolation
from support.raw_iris import RawIris
from support.waiting import LIMIT

CHUNK = 65536
WINDOW = 64 * 1024 * 1024
"""Bytes that the bindings grant at the start."""


class TunnelEnded(Exception):
    """The tunnel has ended; the text is the reason, and empty for a graceful end."""


class ChangeNotifier:
    """Wakes tasks that wait for a condition."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    def notify(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT):
            while not condition():
                notified = asyncio.get_running_loop().create_future()
                self._waiting.append(notified)
                await notified


class IrisTunnel:
    """A tunnel end. `recv` grants the relay as many bytes as it returns."""

    def __init__(self, number: int, chunk_limit: int, window: int, raw: RawIris) -> None:
        self.number = number
        self.chunk_limit = chunk_limit
        self.reason: str | None = None
        """Why it ended; None while it has not."""
        self.allowance = 0
        """Bytes that this end may send."""
        self._relay_may_send = window
        self._raw = raw
        self._changed = ChangeNotifier()
        self._size = 0
        self._partial = bytearray()
        self._messages: deque[bytes] = deque()
        self._closing = False

    def grant_window(self) -> None:
        """Grant the window, once the tunnel is confirmed."""
        self._grant(self._relay_may_send)

    async def send(self, message: bytes) -> None:
        """Send a message. Raises TunnelEnded."""
        for at in range(0, len(message), self.chunk_limit):
            chunk = message[at : at + self.chunk_limit]
            await self.send_chunk(0 if at else len(message), chunk)

    async def send_chunk(self, size: int, chunk: bytes) -> None:
        """Wait for the allowance, then send a chunk.

        `size` is the length of the message in its first chunk, and 0 in the others.
        """
        await self._changed.wait_for(
            lambda: self.allowance >= len(chunk) or self.reason is not None
        )
        if self.reason is not None or self._closing:
            raise TunnelEnded(self.reason or "")
        self.allowance -= len(chunk)
        await self._raw.send_packet(Op.TUNNEL_TRANSFER, self.number, size, chunk)

    async def recv(self) -> bytes:
        """Return the next message. Raises TunnelEnded after the last one."""
        await self._changed.wait_for(lambda: bool(self._messages) or self.reason is not None)
        if not self._messages:
            raise TunnelEnded(self.reason)
        message = self._messages.popleft()
        if self.reason is None:
            self._relay_may_send += len(message)
            self._grant(len(message))
        return message

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield messages until a graceful end. Raises TunnelEnded for any other."""
        while True:
            try:
                yield await self.recv()
            except TunnelEnded:
                if self.reason:
                    raise
                return

    async def close(self) -> str:
        """Close the tunnel, and return the reason that the relay sent."""
        if self.reason is None and not self._closing:
            self._closing = True
            await self._raw.send_packet(Op.TUNNEL_CLOSE, self.number)
        await self.wait_until_ended()
        assert self.reason is not None
        return self.reason

    async def wait_until_ended(self) -> None:
        await self._changed.wait_for(lambda: self.reason is not None)

    # Packets from the relay.

    def on_allowance(self, size: int) -> None:
        self.allowance += size
        self._changed.notify()

    def on_transfer(self, size: int, chunk: bytes) -> None:
        """Handle a chunk.

        Raises ProtocolViolation if the relay has no allowance left, or exceeds a size.
        """
        if self._relay_may_send <= 0:
            raise ProtocolViolation("a transfer without an allowance")
        if not 0 < len(chunk) <= CHUNK:
            raise ProtocolViolation(f"a chunk of {len(chunk)} bytes")
        self._relay_may_send -= len(chunk)
        if size:
            abandoned, self._partial = len(self._partial), bytearray()
            self._size = size
            if abandoned:
                self._relay_may_send += abandoned
                self._grant(abandoned)
        elif not self._partial:
            raise ProtocolViolation("a continued chunk without a message")
        self._partial += chunk
        if len(self._partial) > self._size:
            raise ProtocolViolation(f"{len(self._partial)} bytes of a message of {self._size}")
        if len(self._partial) == self._size:
            self._messages.append(bytes(self._partial))
            self._partial = bytearray()
            self._changed.notify()

    def on_close(self, reason: str) -> None:
        self.reason = reason
        self._changed.notify()

    def _grant(self, size: int) -> None:
        self._raw.send_packet_nowait(Op.TUNNEL_ALLOWANCE, self.number, size)
