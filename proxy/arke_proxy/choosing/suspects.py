"""Back ends that could not be reached a moment ago."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from arke_proxy.choosing.address import Address

_SECONDS = 5.0  # that one failure counts
_TRIAL = 2.0  # seconds; a connection is made, or given up, in one
_MOST = 1000  # addresses remembered


class _Mark(NamedTuple):
    until: float
    on_trial: bool


class Suspects:
    """Remembers failures for a few seconds; then a single request tries the address again.

    The others stay away until it must have been found out: a silent host costs one request its
    second, not every request of that second.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._marks: dict[Address, _Mark] = {}

    def add(self, address: Address) -> None:
        """Suspect an address that has just failed."""
        self._mark(address, _SECONDS, on_trial=False)

    def avoid(self, address: Address) -> bool:
        """Say whether to prefer any other; if not, the caller is going to try this one."""
        mark = self._marks.get(address)
        if mark is None:
            return False
        if self._clock() < mark.until:
            return True
        if mark.on_trial:  # and has not failed: it is back
            del self._marks[address]
        else:
            self._mark(address, _TRIAL, on_trial=True)
        return False

    def _mark(self, address: Address, seconds: float, *, on_trial: bool) -> None:
        self._marks.pop(address, None)
        if len(self._marks) >= _MOST:
            del self._marks[next(iter(self._marks))]  # the oldest
        self._marks[address] = _Mark(self._clock() + seconds, on_trial)
