"""Sends what one event produced: each receiver's messages leave together, in one call."""

from __future__ import annotations

from typing import Protocol


class Flushable(Protocol):
    def flush(self) -> None:
        """Send what is queued, as far as the receiver takes it."""


class Flusher:
    """Whoever queues for an idle receiver adds it here; whoever handled an event flushes."""

    __slots__ = ("dirty",)

    def __init__(self) -> None:
        self.dirty: list[Flushable] = []

    def flush(self) -> None:
        dirty = self.dirty
        while dirty:
            dirty.pop().flush()
