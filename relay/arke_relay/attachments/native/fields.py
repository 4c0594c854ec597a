"""Check the fields of received messages. All functions raise Malformed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from arke.wire.limits import MAX_ID, MAX_TIMEOUT_MS
from arke.wire.malformed import Malformed
from arke_relay.core.endpoints import Message

Handler = Callable[[Message, float], None]
"""Handles one message of a program; the second argument is the time of its arrival."""


def check_size(value: object) -> int:
    """Check a number of bytes. Returns at most MAX_ID, the largest number that peers accept."""
    if type(value) is not int or value < 0:
        raise Malformed("a size must be a number of bytes, at least 0")
    return min(value, MAX_ID)


def check_text(value: object, what: str) -> str:
    if type(value) is not str:
        raise Malformed(f"{what} must be text")
    return value


def check_request(request_id: Any, remaining_ms: Any) -> int:
    """Check both fields. Returns the remaining time, bounded, in milliseconds."""
    if type(request_id) is not int or type(remaining_ms) is not int or remaining_ms < 0:
        raise Malformed("a request id and a remaining time must be numbers, at least 0")
    if not 0 <= request_id <= MAX_ID:
        raise Malformed(f"a request id must be between 0 and {MAX_ID}")
    return min(remaining_ms, MAX_TIMEOUT_MS)
