"""Waits that are bounded, and many deadlines of one length for what comes and goes."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Wait:
    """Something that connections wait for, and for how many seconds at most."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class Deadlines(Generic[T]):
    """Knows which of its items have been waiting for `seconds`.

    All wait equally long, so that the order of starting is the order of ending: no heap, no timer
    each. The caller passes the time and looks now and then.
    """

    __slots__ = ("_ends", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ends: dict[T, float] = {}

    def __len__(self) -> int:
        return len(self._ends)

    def start(self, item: T, now: float) -> None:
        """Give the item its full time from now on, whether or not it was waiting."""
        self._ends.pop(item, None)
        self._ends[item] = now + self._seconds

    def stop(self, item: T) -> None:
        """Forget the item, if it is known."""
        self._ends.pop(item, None)

    def expired(self, now: float) -> Iterator[T]:
        """Yield, and forget, the items whose time has passed.

        What is done about one may start others again, or stop them: their time has not passed then.
        """
        late = list(itertools.takewhile(lambda entry: entry[1] <= now, self._ends.items()))
        for item, end in late:
            if self._ends.get(item) == end:
                del self._ends[item]
                yield item
