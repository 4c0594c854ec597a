"""LogThrottle: limits the rate of log lines per key, and counts the suppressed ones."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable

_MAX_KEYS = 1024


class LogThrottle:
    """Decides for each key whether one more line may be written in the current period.

    It remembers 1024 keys. All further keys share one allowance, so that rotating the key does not
    flood the log either. `clock` returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._period_ends: dict[Hashable, float] = {}
        self._written: dict[Hashable, int] = {}  # in the current period
        self._suppressed: dict[Hashable, int] = {}  # since the last line that was written
        self._next_sweep = -math.inf

    def admit(self, key: Hashable, seconds: float, most: int = 1) -> int | None:
        """Return None to suppress the line, else how many were suppressed since the last one."""
        now = self._clock()
        if key not in self._period_ends and len(self._period_ends) >= _MAX_KEYS:
            key = self._make_room(key, now)
        if now >= self._period_ends.get(key, -math.inf):
            self._period_ends[key] = now + seconds
            self._written[key] = 0
        if self._written[key] >= most:
            self._suppressed[key] = self._suppressed.get(key, 0) + 1
            return None
        self._written[key] += 1
        return self._suppressed.pop(key, 0)

    def _make_room(self, key: Hashable, now: float) -> Hashable:
        """Return `key` if there is room for it once expired keys are removed, else the shared key.

        A sweep visits every key, so the next one waits until a key can have expired.
        """
        if now >= self._next_sweep:
            for old in [old for old, end in self._period_ends.items() if end <= now]:
                del self._period_ends[old]
                self._written.pop(old, None)
                # The shared key reports what a removed key suppressed.
                if old is not _SHARED and (count := self._suppressed.pop(old, 0)):
                    self._suppressed[_SHARED] = self._suppressed.get(_SHARED, 0) + count
            self._next_sweep = min(self._period_ends.values(), default=now)
        return key if len(self._period_ends) < _MAX_KEYS else _SHARED


_SHARED = object()
