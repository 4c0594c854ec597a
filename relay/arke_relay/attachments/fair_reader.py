"""Handle large reads in slices, in turns, so that one fast sender does not block the event loop.

Without it, the loop would handle 8 MiB of one connection at a time: up to three million of the
smallest messages, which takes seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from arke_relay.attachments.detach_reason import DetachReason

SLICE = 16 * 1024
"""Bytes handled between two looks at the clock; at most some thousands of messages."""

_TURN_SECONDS = 0.005
"""Seconds of handling slices, of all connections together, before the loop runs other work."""


class SlicedConnection(Protocol):
    """A connection that read more than a slice at once."""

    def handle_data(self, data: bytes | memoryview) -> None:
        """Handle one slice."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None:
        """Read again, unless the connection is closing."""

    def abort(self, reason: DetachReason) -> None: ...


class FairReader:
    """Handles one slice of each connection in turn. A connection reads again once it is done."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]) -> None:
        self._loop = loop
        self._clock = clock
        self._unhandled: dict[SlicedConnection, memoryview] = {}  # in the order of their turns
        self._busy = False

    def add(self, connection: SlicedConnection, data: bytes) -> None:
        """Handle what a connection has read: now, or in its turn."""
        self._unhandled[connection] = memoryview(data)
        connection.pause_reading()
        if not self._busy:
            self._busy = True
            self._run()

    def remove(self, connection: SlicedConnection) -> None:
        """Discard what is not handled yet."""
        self._unhandled.pop(connection, None)

    def _run(self) -> None:
        end = self._clock() + _TURN_SECONDS
        unhandled = self._unhandled
        done: list[SlicedConnection] = []
        try:
            while unhandled and self._clock() < end:
                connection = next(iter(unhandled))
                data = unhandled.pop(connection)
                if len(data) > SLICE:
                    unhandled[connection] = data[SLICE:]
                try:
                    connection.handle_data(data[:SLICE])
                except BaseException:
                    self.remove(connection)
                    connection.abort(DetachReason.INTERNAL_ERROR)
                    raise
                if connection not in unhandled:
                    done.append(connection)
        finally:
            # Resume in the next iteration: otherwise the loop would read these before others.
            self._loop.call_soon(self._next, done)

    def _next(self, done: list[SlicedConnection]) -> None:
        for connection in done:
            connection.resume_reading()
        if self._unhandled:
            self._run()
        else:
            self._busy = False
