"""Whether one backend is out of rotation, and until when."""

from __future__ import annotations

import math

_FIRST_PAUSE = 1.0  # seconds; a restart takes about as long
_LONGEST_PAUSE = 60.0
_RUN = 5  # answers 502 to 504 in a row; one alone may be the fault of what was asked for


class BackendHealth:
    """What the proxy's own requests, and its checks, have shown of a backend.

    A failure takes it out for a pause. When the pause is over one request is its trial, and until
    that has been answered the next trial is twice as far away: so a backend that hangs costs a
    few requests, and one that refuses connections costs hardly any time.
    """

    __slots__ = (
        "_pause",
        "_unavailable",
        "barred",
        "out",
        "reachable",
        "spotless",
        "tested",
        "until",
    )

    def __init__(self) -> None:
        self.spotless = True  # there is nothing for a success to mend
        self.out = False
        self.until = -math.inf  # then a trial is due
        self.tested = False  # a trial is under way
        self.reachable = True  # or out for other reasons
        self.barred = False  # by a check: only a check brings it back
        self._pause = _FIRST_PAUSE
        self._unavailable = 0

    @property
    def pause(self) -> float:
        """Seconds of the next pause."""
        return self._pause

    def failed(self, now: float, *, reachable: bool = True) -> bool:
        """Learn of a failure; True if it begins a pause.

        Whatever fails during a pause was begun before it, or is its trial: nothing new.
        """
        self.spotless = self.tested = False
        began = not self.out or now >= self.until
        if began:
            self.reachable = True
            self._rest(now)
        self.reachable = self.reachable and reachable
        return began

    def unavailable(self, now: float) -> bool:
        """Learn of an answer 502 to 504; True if it begins a pause."""
        self.spotless = False
        self._unavailable += 1
        return (self._unavailable >= _RUN or self.out) and self.failed(now)

    def trial(self, now: float) -> None:
        """Know that a request is going to find out."""
        self._rest(now)
        self.tested = True

    def bar(self, *, reachable: bool) -> bool:
        """Take it out until `restore`; False if that is nothing new."""
        news = not self.barred
        self.spotless = False
        self.out = self.barred = True
        self.reachable = reachable
        self.until = math.inf
        return news

    def restore(self) -> None:
        """Forget all that was held against it."""
        self.spotless = True
        self.out = self.tested = self.barred = False
        self.reachable = True
        self.until = -math.inf
        self._pause = _FIRST_PAUSE
        self._unavailable = 0

    def _rest(self, now: float) -> None:
        self.out = True
        self.until = now + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
