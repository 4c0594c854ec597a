"""Flush once per event: all messages for one receiver leave in one system call."""

from __future__ import annotations

from typing import Protocol


class Flushable(Protocol):
    def flush(self) -> None:
        """Send what is queued, as far as the receiver takes it."""


class Flusher:
    """A sink that queues its first message adds itself; the handler of an event then flushes."""

    __slots__ = ("dirty",)

    def __init__(self) -> None:
        self.dirty: list[Flushable] = []

    def flush(self) -> None:
        dirty = self.dirty
        while dirty:
            dirty.pop().flush()
