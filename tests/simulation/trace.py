"""Record the last events of a run, and a checksum over all of them to compare two runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from zlib import crc32

from simulation.schedule import Schedule

_MAX_EVENTS = 4_000
_REPORTED_EVENTS = 60
_CHECKSUM_BYTES = 512


class Violation(AssertionError):
    """An invariant does not hold. `keywords` select the events of the trace that belong to it."""

    def __init__(self, invariant: str, text: str, *keywords: str) -> None:
        super().__init__(f"{invariant}: {text}")
        self.invariant = invariant
        self.keywords = keywords


class Trace:
    """The last events of a run."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._events: deque[tuple[float, int, tuple[object, ...]]] = deque(maxlen=_MAX_EVENTS)
        self.checksum = 0
        """Checksum of the first bytes of all received data, in order."""

    def note(self, *words: object) -> None:
        self._events.append((self._schedule.time, self._schedule.steps, words))

    def add_received(self, data: bytes) -> None:
        self.checksum = crc32(data[:_CHECKSUM_BYTES], self.checksum ^ len(data))

    def last(self, keywords: Iterable[str] = ()) -> list[str]:
        """Return the last events, or the last ones that contain one of the keywords."""
        wanted = set(keywords)
        lines = [
            f"{time:10.4f} step {step:6}  {' '.join(map(str, words))}"
            for time, step, words in self._events
            if not wanted or wanted & set(map(str, words))
        ]
        return lines[-_REPORTED_EVENTS:]
