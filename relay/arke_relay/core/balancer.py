"""Power of two choices: draw two members, take the one with less of our own work per member.

Latency is not looked at: a member that fails fast would look fast. A recent failure weighs like
work under way and fades. Where all have failed lately the failures are ignored, so that a bad
deploy or a broken switch never takes the last member out.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

from arke_relay.core.directory import Candidate
from arke_relay.core.endpoints import Endpoint

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
        self, draws: Sequence[Candidate], tried: Container[Endpoint], now: float
    ) -> Candidate | None:
        """One of `draws` (each as often as it has members) outside `tried`, or None."""
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
            sound = [c for c in draws if not self._penalty(c, now)]
            if sound:
                one, other = self._draw(sound)
        if other.outstanding / len(other.members) < one.outstanding / len(one.members):
            return other
        return one

    def _draw(self, draws: Sequence[Candidate]) -> tuple[Candidate, Candidate]:
        """Two different draws, or the only one twice."""
        random, count = self._random, len(draws)
        first = int(random() * count)
        if count == 1:
            return draws[0], draws[0]
        second = int(random() * (count - 1))
        return draws[first], draws[second + (second >= first)]

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
