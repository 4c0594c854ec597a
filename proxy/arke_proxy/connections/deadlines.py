"""Deadlines of many items with one common length, without a timer for each."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Deadlines(Generic[T]):
    """Finds the items that have waited for `seconds`.

    All items wait equally long, so they expire in the order in which they started: no heap is
    needed. The caller passes the current time, and polls `expired`.
    """

    __slots__ = ("_ends", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ends: dict[T, float] = {}

    def __len__(self) -> int:
        return len(self._ends)

    def start(self, item: T, now: float) -> None:
        """Give the item its full time from now on; restart it if it is waiting already."""
        self._ends.pop(item, None)
        self._ends[item] = now + self._seconds

    def stop(self, item: T) -> None:
        """Forget the item, if it is known."""
        self._ends.pop(item, None)

    def expired(self, now: float) -> Iterator[T]:
        """Yield, and forget, the items whose time has passed.

        The caller may start or stop items meanwhile; those are not yielded.
        """
        late = list(itertools.takewhile(lambda entry: entry[1] <= now, self._ends.items()))
        for item, end in late:
            if self._ends.get(item) == end:
                del self._ends[item]
                yield item
