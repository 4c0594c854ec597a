"""Measure how long messages were delayed in transit, without synchronised clocks.

The sender stamps messages with its own monotonic clock. The smallest difference between the
receiver's clock and the stamp belongs to a message that was not delayed. A larger difference is
delay: in a buffer, in a stopped process or on an interrupted link. The minimum is kept over two
windows of five seconds, so that a clock that jumps (a suspended machine) is accepted soon.
"""

from __future__ import annotations

_WINDOW_MS = 5_000


class TransitTime:
    """Estimates the delay of each message of one sender. Times are milliseconds."""

    __slots__ = ("_minimum", "_previous_minimum", "_window_end")

    def __init__(self) -> None:
        self._minimum: float | None = None
        self._previous_minimum: float | None = None
        self._window_end = 0.0

    def delay(self, stamp: float, now: float) -> float:
        """Return by how much a message was slower than the fastest one, in milliseconds."""
        difference = now - stamp
        if self._minimum is None or now >= self._window_end:
            self._previous_minimum = self._minimum
            self._minimum = difference
            self._window_end = now + _WINDOW_MS
        elif difference < self._minimum:
            self._minimum = difference
        minimum = self._minimum
        if self._previous_minimum is not None and self._previous_minimum < minimum:
            minimum = self._previous_minimum
        return difference - minimum
