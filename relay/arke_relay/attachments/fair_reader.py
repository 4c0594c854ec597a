"""What programs sent, in pieces: however fast some of them send, others get their turns.

Left alone, the loop would read 8 MiB of one connection before it looks at another: three million
of the smallest messages, and seconds in which nobody else hears of this relay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

PIECE = 16 * 1024
"""Octets handled between two looks at the clock; at most some thousands of messages."""

_TURN = 0.005
"""Seconds of work on long reads, of whomever, after which the loop looks at all else."""


class Reader(Protocol):
    """A connection that reads more than a piece at once."""

    def understand(self, data: bytes | memoryview) -> None:
        """Handle some octets."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None:
        """Read again, unless the connection has ended."""

    def abort(self, reason: str) -> None: ...


class FairReader:
    """Hands long reads on in turns; who is waiting for one reads nothing more until all is done."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]) -> None:
        self._loop = loop
        self._clock = clock
        self._left: dict[Reader, memoryview] = {}  # in the order of their turns
        self._busy = False

    def take(self, reader: Reader, data: bytes) -> None:
        """Begin with what was read, or let it wait for its turn."""
        self._left[reader] = memoryview(data)
        reader.pause_reading()
        if not self._busy:
            self._busy = True
            self._go_on()

    def drop(self, reader: Reader) -> None:
        """Handle no more of it."""
        self._left.pop(reader, None)

    def _go_on(self) -> None:
        ends = self._clock() + _TURN
        left = self._left
        done: list[Reader] = []
        try:
            while left and self._clock() < ends:
                reader = next(iter(left))
                data = left.pop(reader)
                if len(data) > PIECE:
                    left[reader] = data[PIECE:]
                try:
                    reader.understand(data[:PIECE])
                except BaseException:
                    self.drop(reader)
                    reader.abort("its octets could not be handled")
                    raise
                if reader not in left:
                    done.append(reader)
        finally:
            # Not before the next turn, or the loop would read on without looking at others.
            self._loop.call_soon(self._next, done)

    def _next(self, done: list[Reader]) -> None:
        for reader in done:
            reader.resume_reading()
        if self._left:
            self._go_on()
        else:
            self._busy = False
