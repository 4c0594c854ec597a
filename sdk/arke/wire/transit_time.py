"""How long a message waited on its way, without comparing two clocks.

A sender stamps what it sends with its own monotonic clock. The smallest difference ever seen
between our clock and the stamp is a message that did not wait; what exceeds it is waiting: in a
buffer, in a paused process, in a cable that was out. The minimum is kept over two windows of five
seconds: a machine that was suspended stamps late from then on, and is believed soon.
"""

from __future__ import annotations

_WINDOW = 5_000


class Lateness:
    """Times are milliseconds of any clock that never goes back."""

    __slots__ = ("_best", "_previous", "_until")

    def __init__(self) -> None:
        self._best: float | None = None
        self._previous: float | None = None
        self._until = 0.0

    def waited(self, stamp: float, now: float) -> float:
        """Milliseconds that a message stamped `stamp` waited beyond the quickest one."""
        difference = now - stamp
        if self._best is None or now >= self._until:
            self._previous = self._best
            self._best = difference
            self._until = now + _WINDOW
        elif difference < self._best:
            self._best = difference
        base = self._best
        if self._previous is not None and self._previous < base:
            base = self._previous
        return difference - base
