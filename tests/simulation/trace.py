"""What happened, for whoever must find out why; and a sum over all of it, to compare two runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from zlib import crc32

from simulation.schedule import Schedule

_KEPT = 4_000
_SHOWN = 60
_SUMMED = 512


class Violation(AssertionError):
    """An invariant does not hold. `concerned` are the words that its events have in the trace."""

    def __init__(self, invariant: str, text: str, *concerned: str) -> None:
        super().__init__(f"{invariant}: {text}")
        self.invariant = invariant
        self.concerned = concerned


class Trace:
    """The last events of a run."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._events: deque[tuple[float, int, tuple[object, ...]]] = deque(maxlen=_KEPT)
        self.sum = 0
        """Of the beginnings of all that arrived anywhere, in order: equal for equal runs only."""

    def note(self, *words: object) -> None:
        self._events.append((self._schedule.time, self._schedule.steps, words))

    def arrived(self, octets: bytes) -> None:
        self.sum = crc32(octets[:_SUMMED], self.sum ^ len(octets))

    def last(self, concerned: Iterable[str] = ()) -> list[str]:
        """The last events, or the last of those that concern somebody."""
        wanted = set(concerned)
        lines = [
            f"{time:10.4f} step {step:6}  {' '.join(map(str, words))}"
            for time, step, words in self._events
            if not wanted or wanted & set(map(str, words))
        ]
        return lines[-_SHOWN:]
