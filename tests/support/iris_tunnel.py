"""An end of a tunnel as the Iris bindings keep it: allowances, and messages cut and joined."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from support.iris_packets import Broken, Op
from support.raw_iris import RawIris
from support.waiting import LIMIT

CHUNK = 65536
WINDOW = 64 * 1024 * 1024
"""What the bindings grant at the start."""


class TunnelEnded(Exception):
    """The tunnel has ended; the text is the reason, and empty for a graceful end."""


class Bell:
    """Wakes whoever waits for something to become true."""

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
                rung = asyncio.get_running_loop().create_future()
                self._waiting.append(rung)
                await rung


class IrisTunnel:
    """What this end grants is given back for each whole message that `recv` returns."""

    def __init__(self, number: int, chunk_limit: int, window: int, raw: RawIris) -> None:
        self.number = number
        self.chunk_limit = chunk_limit
        self.reason: str | None = None
        """Why it ended; None while it has not."""
        self.allowance = 0
        """Octets that this end may send."""
        self._granted = window
        self._raw = raw
        self._changed = Bell()
        self._size = 0
        self._partial = bytearray()
        self._messages: deque[bytes] = deque()
        self._closing = False

    def grant_window(self) -> None:
        """Grant the window; to be said after the confirmation."""
        self._grant(self._granted)

    async def send(self, message: bytes) -> None:
        """Send a message. Raises TunnelEnded."""
        for at in range(0, len(message), self.chunk_limit):
            chunk = message[at : at + self.chunk_limit]
            await self.send_chunk(0 if at else len(message), chunk)

    async def send_chunk(self, size: int, chunk: bytes) -> None:
        """Send one chunk, of a message of that size if it is its first, once it is allowed."""
        await self._changed.wait_for(
            lambda: self.allowance >= len(chunk) or self.reason is not None
        )
        if self.reason is not None or self._closing:
            raise TunnelEnded(self.reason or "")
        self.allowance -= len(chunk)
        await self._raw.send_packet(Op.TUNNEL_TRANSFER, self.number, size, chunk)

    async def recv(self) -> bytes:
        """Return the next message; what came before the end is still there. Raises TunnelEnded."""
        await self._changed.wait_for(lambda: bool(self._messages) or self.reason is not None)
        if not self._messages:
            raise TunnelEnded(self.reason)
        message = self._messages.popleft()
        if self.reason is None:
            self._granted += len(message)
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
        """End it, unless it has ended, and return the reason that the relay gave."""
        if self.reason is None and not self._closing:
            self._closing = True
            await self._raw.send_packet(Op.TUNNEL_CLOSE, self.number)
        await self.wait_until_ended()
        assert self.reason is not None
        return self.reason

    async def wait_until_ended(self) -> None:
        await self._changed.wait_for(lambda: self.reason is not None)

    # What the relay says.

    def on_allowance(self, octets: int) -> None:
        self.allowance += octets
        self._changed.notify()

    def on_transfer(self, size: int, chunk: bytes) -> None:
        """Take a chunk. Raises Broken where the relay does not keep to what was agreed."""
        if self._granted <= 0:
            raise Broken("a transfer without an allowance")
        if not 0 < len(chunk) <= CHUNK:
            raise Broken(f"a chunk of {len(chunk)} octets")
        self._granted -= len(chunk)
        if size:
            given_up, self._partial = len(self._partial), bytearray()
            self._size = size
            if given_up:
                self._granted += given_up
                self._grant(given_up)
        elif not self._partial:
            raise Broken("a chunk that goes on with no message")
        self._partial += chunk
        if len(self._partial) > self._size:
            raise Broken(f"{len(self._partial)} octets of a message of {self._size}")
        if len(self._partial) == self._size:
            self._messages.append(bytes(self._partial))
            self._partial = bytearray()
            self._changed.notify()

    def on_close(self, reason: str) -> None:
        self.reason = reason
        self._changed.notify()

    def _grant(self, octets: int) -> None:
        self._raw.send_packet_nowait(Op.TUNNEL_ALLOWANCE, self.number, octets)
