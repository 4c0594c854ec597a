"""Power of two choices: draw two members, choose the one with fewer outstanding requests.

Outstanding requests are this relay's own, per member. Latency is not used: a member that fails fast
would look fast. A recent failure weighs like outstanding requests, and its weight decays. If every
member has failed recently, penalties are ignored: a bad deployment must not empty the cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

from arke_relay.core.directory import Candidate
from arke_relay.core.endpoints import Endpoint

HALF_LIFE = 1.0
"""Seconds in which a penalty halves."""

FAULT = 1.0
"""Penalty of an exception in the handler: it may be the caller's fault."""

REFUSAL = 4.0
"""Penalty of a member that refused, had a full queue, or was lost."""

_NEGLIGIBLE = 0.1
_MAX_PENALTY = 64.0


class PowerOfTwoBalancer:
    """`random` returns floats in [0, 1)."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random

    def choose(
        self, draws: Sequence[Candidate], tried: Container[Endpoint], now: float
    ) -> Candidate | None:
        """Choose from `draws`, which holds a candidate once per member. Skip those in `tried`."""
        if tried:
            draws = [c for c in draws if c.endpoint not in tried]
        if len(draws) < 2:
            return draws[0] if draws else None
        one, other = self._draw(draws)
        if one.penalty or other.penalty:
            one_penalty, other_penalty = self._penalty(one, now), self._penalty(other, now)
            if not (one_penalty and other_penalty):
                one_load = one.outstanding / len(one.members) + one_penalty
                other_load = other.outstanding / len(other.members) + other_penalty
                return other if other_load < one_load else one
            healthy = [c for c in draws if not self._penalty(c, now)]
            if healthy:
                one, other = self._draw(healthy)
        if other.outstanding / len(other.members) < one.outstanding / len(one.members):
            return other
        return one

    def _draw(self, draws: Sequence[Candidate]) -> tuple[Candidate, Candidate]:
        """Return two different draws, or the only one twice."""
        random, count = self._random, len(draws)
        first = int(random() * count)
        if count == 1:
            return draws[0], draws[0]
        second = int(random() * (count - 1))
        return draws[first], draws[second + (second >= first)]

    def penalise(self, candidate: Candidate, weight: float, now: float) -> None:
        candidate.penalty = min(_MAX_PENALTY, self._penalty(candidate, now) + weight)
        candidate.penalised_at = now

    def _penalty(self, candidate: Candidate, now: float) -> float:
        """Return the decayed penalty."""
        if not candidate.penalty:
            return 0.0
        penalty: float = candidate.penalty * 0.5 ** ((now - candidate.penalised_at) / HALF_LIFE)
        if penalty < _NEGLIGIBLE:
            candidate.penalty = 0.0
            return 0.0
        return penalty
