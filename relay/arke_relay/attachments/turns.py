"""What one program sent, in pieces: however fast it sends, others on the loop get their turns.

Left alone, the loop would read 8 MiB of one connection before it looks at another: three million
of the smallest messages, and seconds in which nobody else hears of this relay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PIECE = 16 * 1024
"""Octets handled between two looks at the clock; at most some thousands of messages."""

_TURN = 0.005
"""Seconds of one program's work after which others get their turn."""


class Turns:
    """Hands long reads on to `handle`; the transport reads nothing more until that is done."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        transport: asyncio.Transport,
        handle: Callable[[bytes | memoryview], None],
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._transport = transport
        self._handle = handle
        self._left = memoryview(b"")

    def take(self, data: bytes) -> None:
        """Begin with what was read, and go on with it in later turns."""
        self._left = memoryview(data)
        self._transport.pause_reading()
        self._go_on()

    def drop(self) -> None:
        """Handle no more."""
        self._left = memoryview(b"")

    def _go_on(self) -> None:
        ends = self._clock() + _TURN
        while self._left and self._clock() < ends:
            piece, self._left = self._left[:PIECE], self._left[PIECE:]
            self._handle(piece)
        # Not before the next turn, or the loop would read on without looking at others.
        self._loop.call_soon(self._go_on if self._left else self._resume)

    def _resume(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()
