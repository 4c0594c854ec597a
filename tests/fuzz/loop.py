"""A loop whose time passes only when it is told, and transports without sockets."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from typing import Any, cast

from arke.wire.limits import READ_SIZE
from fuzz.finding import Finding

_ROUNDS = 20_000  # turns of the loop in which one event must come to rest


class _NoSockets(selectors.SelectSelector):
    """There are none: nothing to wait for, and nothing to ask the kernel."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return []


class FakeLoop(asyncio.SelectorEventLoop):
    """Its clock stands still; what nobody foresaw in a callback is kept for `check`."""

    def __init__(self) -> None:
        super().__init__(_NoSockets())
        self.now = 1000.0
        self.dial: Callable[[asyncio.Protocol], None] | None = None
        """Makes the connection that somebody on this loop asks for."""
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
        """Run what is ready, and what that makes ready. Raises Finding if it never ends."""
        for _ in range(_ROUNDS):
            await asyncio.sleep(0)
            if not self._ready:
                self.check()
                return
        raise Finding("the loop does not come to rest")

    def check(self) -> None:
        """Raises what a callback raised."""
        errors, self._errors = self._errors, []
        for context in errors:
            error = context.get("exception")
            raise Finding(str(context["message"])) from error

    @property
    def timers(self) -> int:
        return sum(not timer.cancelled() for timer in self._scheduled)


class FakeTransport(asyncio.Transport):
    """One side of a connection: what is written is `received`, unless the other side stalls."""

    def __init__(self, loop: FakeLoop, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._loop = loop
        self.protocol = protocol
        self.received = bytearray()
        self.stalled = False
        self.reading = True
        self.lost = False
        self.ended = False
        """Nothing more is written; the other side is to close."""
        self._unread = bytearray()
        self._closing = False
        self._pending: list[bytes] = []
        protocol.connection_made(self)

    def feed(self, octets: bytes) -> None:
        """The other side sends; what comes while reading is paused waits."""
        self._pending += [octets[at : at + READ_SIZE] for at in range(0, len(octets), READ_SIZE)]
        self._hand_over()

    def stall(self) -> None:
        self.stalled = True

    def go_on(self) -> None:
        """Read what waited, and on."""
        self.stalled = False
        while self._unread and not self.stalled:
            self.received += self._unread
            self._unread.clear()
            if not self.lost:
                self.protocol.resume_writing()
        if self._closing:
            self._lose(None)

    def cut(self) -> None:
        """The other side is gone."""
        self._lose(ConnectionResetError("reset by peer"))

    @property
    def left(self) -> int:
        """Octets that came and were not handed over."""
        return sum(map(len, self._pending))

    # What protocols use.

    def write(self, data: Any) -> None:
        if self.lost or self._closing:
            return
        if not self.stalled:
            self.received += data
            return
        idle = not self._unread
        self._unread += data
        if idle:
            self.protocol.pause_writing()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Whatever waits pauses the writer."""

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
