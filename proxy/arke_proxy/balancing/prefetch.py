"""Prefetch: how many addresses to ask for ahead of requests, and how long they stay usable."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import Final

from arke_proxy.backends.address import BackendAddress

MAX_AGE: Final = 0.05  # seconds; an older answer may be out of date
_MIN_DEMAND: Final = 2  # requests within MAX_AGE before any address is prefetched
_MAX_PREFETCHED: Final = 1024
_BATCHES: Final = 16  # a batch is more than 1/16 of the wanted answers; it wakes the relay once


class Prefetch:
    """Prefetched answers of members, in proportion to the demand of the last 50 ms.

    It holds enough for about the next 25 ms. That is longer than asking takes and shorter than an
    answer stays usable. It does no I/O and does not read the clock: the caller sends the requests
    and supplies the current time.
    """

    __slots__ = ("_answers", "_count", "_last_count", "_since", "in_flight", "paused_until")

    def __init__(self) -> None:
        self._answers: deque[tuple[float, BackendAddress]] = deque()  # the oldest first
        self._since = 0.0  # start of the current interval of MAX_AGE seconds
        self._count = 0  # requests in the current interval
        self._last_count = 0  # requests in the interval before
        self.in_flight = 0  # requests to members without a reply yet
        self.paused_until = 0.0

    def __len__(self) -> int:
        return len(self._answers)

    def count_request(self, now: float) -> int:
        """Count an HTTP request; return how many addresses to ask for now."""
        passed = now - self._since
        if passed >= MAX_AGE:
            self._last_count = self._count if passed < 2 * MAX_AGE else 0
            self._count = 0
            self._since = now
        self._count += 1
        demand = max(self._last_count, self._count)
        if demand < _MIN_DEMAND or now < self.paused_until:
            return 0
        wanted = min((demand + 1) // 2, _MAX_PREFETCHED)
        missing = wanted - len(self._answers) - self.in_flight
        return missing if missing > wanted // _BATCHES else 0

    def add(self, address: BackendAddress, now: float) -> None:
        """Keep an answer."""
        self._answers.append((now, address))

    def take(self, tried: Collection[BackendAddress], now: float) -> BackendAddress | None:
        """Remove and return the oldest answer that is recent enough and not in `tried`."""
        answers = self._answers
        while answers:
            since, address = answers.popleft()
            if now - since < MAX_AGE and address not in tried:
                return address
        return None

    def pause(self, until: float) -> None:
        """Stop prefetching until `until`, so that requests that wait for a backend go first."""
        self.paused_until = until
