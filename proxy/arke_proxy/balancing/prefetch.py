"""Answers that were asked for ahead of need: how many there should be, and how old they may be."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import Final

from arke_proxy.backends.address import BackendAddress

FRESH: Final = 0.05  # seconds; what the cluster said before that may no longer hold
_DEMAND: Final = 2  # requests within that time, until the next ones are worth preparing for
_MOST: Final = 1024
_BUNCHES: Final = 16  # of what is kept ahead: one bunch wakes the relay, and the member, once


class Prefetch:
    """Knows the demand of the last 50 ms and keeps answers for about half as much of the future.

    So an answer waits for some 25 ms before it is used, which is longer than asking takes and
    shorter than it keeps; and what is left over when the demand ends is soon too old. The caller
    passes the time, and asks.
    """

    __slots__ = ("_answers", "_before", "_count", "_since", "asked", "paused_until")

    def __init__(self) -> None:
        self._answers: deque[tuple[float, BackendAddress]] = deque()  # the oldest first
        self._since = 0.0  # when counting began
        self._count = 0  # requests since then
        self._before = 0  # in the 50 ms before
        self.asked = 0  # questions under way
        self.paused_until = 0.0

    def __len__(self) -> int:
        return len(self._answers)

    def count(self, now: float) -> int:
        """Count a request; return how many questions to ask now."""
        passed = now - self._since
        if passed >= FRESH:
            self._before = self._count if passed < 2 * FRESH else 0
            self._count = 0
            self._since = now
        self._count += 1
        demand = max(self._before, self._count)
        if demand < _DEMAND or now < self.paused_until:
            return 0
        wanted = min((demand + 1) // 2, _MOST)
        missing = wanted - len(self._answers) - self.asked
        return missing if missing > wanted // _BUNCHES else 0

    def keep(self, address: BackendAddress, now: float) -> None:
        self._answers.append((now, address))

    def take(self, tried: Collection[BackendAddress], now: float) -> BackendAddress | None:
        """Hand out the oldest that is fresh, and was not tried."""
        answers = self._answers
        while answers:
            since, address = answers.popleft()
            if now - since < FRESH and address not in tried:
                return address
        return None

    def pause(self, until: float) -> None:
        """Ask nothing ahead until then: those who wait for an answer come first."""
        self.paused_until = until
