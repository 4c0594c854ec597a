"""Power of two choices: draw two backends by weight, pick the less loaded one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

from arke_proxy.backends.address import BackendAddress
from arke_proxy.balancing.rotation_entry import RotationEntry


class PowerOfTwoChoices:
    """Picks among a fixed set of at least two backends.

    The load is this worker's outstanding requests, relative to the weight. Latency is not
    compared, because a backend that fails fast looks fast.
    """

    __slots__ = ("_backends", "_cumulative", "_draw")

    def __init__(self, backends: Sequence[RotationEntry], draw: Callable[[], float]) -> None:
        self._backends = list(backends)
        self._draw = draw
        self._cumulative: list[float] = []  # running sums of the effective weights
        total = 0.0
        for backend in backends:
            total += backend.effective_weight
            self._cumulative.append(total)

    def pick(self) -> BackendAddress:
        backends = self._backends
        cumulative = self._cumulative
        draw = self._draw
        last = len(backends) - 1
        index = bisect_right(cumulative, draw() * cumulative[last], 0, last)
        one = backends[index]
        if last == 1:
            other = backends[1 - index]
        else:  # draw the second from the rest: skip the first one's part of the sums
            mark = draw() * (cumulative[last] - one.effective_weight)
            if mark >= cumulative[index] - one.effective_weight:
                mark += one.effective_weight
            other = backends[bisect_right(cumulative, mark, 0, last)]
        if one.outstanding * other.effective_weight <= other.outstanding * one.effective_weight:
            return one.address
        return other.address
