"""Power of two choices: draw two members, take the one with less of our own work per member.

Latency is not looked at: a member that fails fast would look fast. A recent failure weighs like
work under way and fades; where both have failed lately the failures are ignored, so that a bad
deploy or a broken switch never takes the last member out.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

from arke_relay.core.directory import Candidate
from arke_relay.core.parties import Party

HALF_LIFE = 1.0
"""Seconds in which a penalty halves."""

FAULT = 1.0
"""The handler raised. Often the caller's fault; still better tried elsewhere for a moment."""

REFUSAL = 4.0
"""The member was full or leaving, or its node was lost."""

_FADED = 0.1
_MOST = 64.0


class Balancer:
    """`random` returns floats in [0, 1)."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random

    def choose(
        self, draws: Sequence[Candidate], tried: Container[Party], now: float
    ) -> Candidate | None:
        """One of `draws` (each as often as it has members) outside `tried`, or None."""
        if tried:
            draws = [c for c in draws if c.party not in tried]
        count = len(draws)
        if count < 2:
            return draws[0] if count else None
        random = self._random
        first = int(random() * count)
        second = int(random() * (count - 1))
        if second >= first:
            second += 1
        one, other = draws[first], draws[second]
        if one is other:
            return one
        one_load = one.outstanding / len(one.members)
        other_load = other.outstanding / len(other.members)
        if one.penalty or other.penalty:
            one_penalty, other_penalty = self._penalty(one, now), self._penalty(other, now)
            if not (one_penalty and other_penalty):
                one_load += one_penalty
                other_load += other_penalty
        return other if other_load < one_load else one

    def penalise(self, candidate: Candidate, weight: float, now: float) -> None:
        candidate.penalty = min(_MOST, self._penalty(candidate, now) + weight)
        candidate.penalised_at = now

    def _penalty(self, candidate: Candidate, now: float) -> float:
        if not candidate.penalty:
            return 0.0
        penalty: float = candidate.penalty * 0.5 ** ((now - candidate.penalised_at) / HALF_LIFE)
        if penalty < _FADED:
            candidate.penalty = 0.0
            return 0.0
        return penalty
