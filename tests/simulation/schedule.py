"""The simulated clock: it runs scheduled callbacks in the order of their times."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any


class Schedule:
    """Callbacks that are due at the same time run in the order in which they were scheduled."""

    def __init__(self) -> None:
        self.time = 0.0
        self.steps = 0
        self._due: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._numbers = 0

    def at(self, time: float, act: Callable[..., object], *arguments: Any) -> None:
        self._numbers += 1
        heappush(self._due, (time, self._numbers, act, arguments))

    def after(self, seconds: float, act: Callable[..., object], *arguments: Any) -> None:
        self.at(self.time + seconds, act, *arguments)

    def run(self, seconds: float) -> None:
        """Run all callbacks that are due within `seconds`, also those scheduled meanwhile."""
        ends = self.time + seconds
        due = self._due
        while due and due[0][0] <= ends:
            self.time, _, act, arguments = heappop(due)
            self.steps += 1
            act(*arguments)
        self.time = ends
