"""Slow start: a new backend gets a growing share of requests while its caches warm up."""

from __future__ import annotations

from typing import Final

DURATION: Final = 10.0  # seconds until a new backend gets its full share
UPDATE_INTERVAL: Final = 0.1  # seconds between two updates of the shares
_INITIAL_SHARE: Final = 0.1  # of its weight


def effective_weight(weight: float, age: float) -> float:
    """Return the weight of a backend that has been in rotation for `age` seconds."""
    if age >= DURATION:
        return weight
    return weight * max(_INITIAL_SHARE, age / DURATION)
