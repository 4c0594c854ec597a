"""Limit the connections whose program has not sent its HELLO yet."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from arke.program.logging import Log
from arke_relay.core.counters import Counters, DropCause

_MAX_PENDING = 512
"""With one more, the oldest is closed. A program sends HELLO within milliseconds, so the oldest is
one that stays silent on purpose."""

_LOG_PERIOD = 10.0


class Rejection(StrEnum):
    """Why a connection was closed before its handshake; a log value."""

    TOO_MANY_PENDING = "too_many_pending"
    UNKNOWN_PROTOCOL = "unknown_protocol"
    HELLO_TOO_LONG = "hello_too_long"
    TIMED_OUT = "timed_out"
    USER_NOT_ALLOWED = "user_not_allowed"


class Handshake(Protocol):
    """A connection before its HELLO."""

    def abort(self) -> None:
        """Close the connection at once."""


class PendingHandshakes:
    """Counts, closes and logs."""

    def __init__(self, counters: Counters, log: Log) -> None:
        self._counters = counters
        self._log = log
        self._pending: dict[Handshake, None] = {}

    def add(self, handshake: Handshake) -> None:
        """Add a new connection. If there are too many, close the oldest."""
        if len(self._pending) >= _MAX_PENDING:
            oldest = next(iter(self._pending))
            self.remove(oldest)
            self.reject(Rejection.TOO_MANY_PENDING)
            oldest.abort()
        self._pending[handshake] = None

    def remove(self, handshake: Handshake) -> None:
        """Remove a connection that was closed or has completed its handshake."""
        self._pending.pop(handshake, None)

    def reject(self, reason: Rejection, **fields: object) -> None:
        """Count and log a connection that is closed before its handshake."""
        self._counters.drops[DropCause.HANDSHAKE_REFUSED] += 1
        log = self._log.limited("handshake", _LOG_PERIOD)
        log.info("program rejected", reason=reason.value, **fields)

    def close(self) -> None:
        """Close them all."""
        for handshake in list(self._pending):
            handshake.abort()
