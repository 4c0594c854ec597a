"""An event loop with a simulated clock, and transports without sockets."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from typing import Any, cast

from arke.wire.limits import READ_SIZE
from fuzz.finding import Finding

_MAX_ROUNDS = 20_000  # iterations of the loop after which it must be idle


class _NoSockets(selectors.SelectSelector):
    """A selector that never waits: there are no sockets."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return []


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Its clock changes only by assignment. `check` raises exceptions of callbacks."""

    def __init__(self) -> None:
        super().__init__(_NoSockets())
        self.now = 1000.0
        self.dial: Callable[[asyncio.Protocol], None] | None = None
        """Makes the connection for `create_connection`."""
        self._errors: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self._errors.append(context))

    def time(self) -> float:
        return self.now

    async def create_connection(self, factory: Any, *_: object, **__: object) -> Any:  # type: ignore[override]
        if self.dial is None:
            raise ConnectionRefusedError
        protocol = factory()
        self.dial(protocol)
        return None, protocol

    async def rest(self) -> None:
        """Run callbacks until none is ready. Raises Finding if that never happens."""
        for _ in range(_MAX_ROUNDS):
            await asyncio.sleep(0)
            if not self._ready:
                self.check()
                return
        raise Finding("the event loop never becomes idle")

    def check(self) -> None:
        """Raise Finding for an exception of a callback."""
        errors, self._errors = self._errors, []
        for context in errors:
            error = context.get("exception")
            raise Finding(str(context["message"])) from error

    @property
    def timers(self) -> int:
        return sum(not timer.cancelled() for timer in self._scheduled)


class SimulatedTransport(asyncio.Transport):
    """One side of a connection. Written bytes arrive in `received`, unless writes are blocked."""

    def __init__(self, loop: SimulatedLoop, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._loop = loop
        self.protocol = protocol
        self.received = bytearray()
        self.writes_blocked = False
        self.reading = True
        self.lost = False
        self.ended = False
        """The writing side was closed (EOF)."""
        self._unread = bytearray()
        self._closing = False
        self._pending: list[bytes] = []
        protocol.connection_made(self)

    def feed(self, data: bytes) -> None:
        """Receive bytes from the other side; while reading is paused they wait."""
        self._pending += [data[at : at + READ_SIZE] for at in range(0, len(data), READ_SIZE)]
        self._hand_over()

    def block_writes(self) -> None:
        self.writes_blocked = True

    def unblock_writes(self) -> None:
        """The other side reads again: deliver the waiting bytes."""
        self.writes_blocked = False
        while self._unread and not self.writes_blocked:
            self.received += self._unread
            self._unread.clear()
            if not self.lost:
                self.protocol.resume_writing()
        if self._closing:
            self._lose(None)

    def disconnect(self) -> None:
        """The other side resets the connection."""
        self._lose(ConnectionResetError("reset by peer"))

    @property
    def undelivered(self) -> int:
        """Number of received bytes that the protocol has not got."""
        return sum(map(len, self._pending))

    # The interface for protocols.

    def write(self, data: Any) -> None:
        if self.lost or self._closing:
            return
        if not self.writes_blocked:
            self.received += data
            return
        idle = not self._unread
        self._unread += data
        if idle:
            self.protocol.pause_writing()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Do nothing: any waiting byte pauses the writer."""

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = cast("asyncio.Protocol", protocol)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True
        self._loop.call_soon(self._hand_over)

    def write_eof(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True
        if not self._unread:
            self._loop.call_soon(self._lose, None)

    def abort(self) -> None:
        self._closing = True
        self._loop.call_soon(self._lose, None)

    def _hand_over(self) -> None:
        while self._pending and self.reading and not self._closing:
            self.protocol.data_received(self._pending.pop(0))

    def _lose(self, error: Exception | None) -> None:
        if not self.lost:
            self.lost = self._closing = True
            self._pending.clear()
            self._unread.clear()
            self.protocol.connection_lost(error)
