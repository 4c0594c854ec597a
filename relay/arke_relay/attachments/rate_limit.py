"""How often a program may come and go: every change is told to every peer."""

from __future__ import annotations

from arke.wire.limits import MAX_TOPICS
from arke_relay.core.message_core import NotAllowed

_CHANGES = 2.0 * MAX_TOPICS
_CHANGES_PER_SECOND = 1_000.0
"""Registrations, subscriptions and watches of one program: all when it attaches, then some."""


class RegistrationRateLimit:
    """Those of one program."""

    __slots__ = ("_changed", "_left")

    def __init__(self) -> None:
        self._left = _CHANGES
        self._changed = 0.0

    def count(self, now: float) -> None:
        """One more. Raises NotAllowed when it is too much."""
        allowed = self._left + (now - self._changed) * _CHANGES_PER_SECOND
        self._left = min(_CHANGES, allowed) - 1
        self._changed = now
        if self._left < 0:
            raise NotAllowed("it comes and goes too often")
