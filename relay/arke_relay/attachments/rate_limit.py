"""Rate limit for registrations, subscriptions and watches.

The first two may be announced to every peer, and a watch is answered with all members.
"""

from __future__ import annotations

from arke.wire.limits import MAX_TOPICS
from arke_relay.core.attached_programs import NotAllowed

_BURST = 2.0 * MAX_TOPICS
_PER_SECOND = 1_000.0


class RegistrationRateLimit:
    """A token bucket for the changes of one program: many when it attaches, few afterwards."""

    __slots__ = ("_tokens", "_updated_at")

    def __init__(self) -> None:
        self._tokens = _BURST
        self._updated_at = 0.0

    def count(self, now: float) -> None:
        """Count one change. Raises NotAllowed beyond the limit."""
        tokens = self._tokens + (now - self._updated_at) * _PER_SECOND
        self._tokens = min(_BURST, tokens) - 1
        self._updated_at = now
        if self._tokens < 0:
            raise NotAllowed(
                f"more than {_PER_SECOND:.0f} registrations, subscriptions and watches per second"
            )
