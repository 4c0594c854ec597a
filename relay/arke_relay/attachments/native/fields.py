"""The fields of a message as they came, checked. All raise Malformed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from arke.wire.limits import MAX_ID, MAX_TIMEOUT_MS
from arke.wire.malformed import Malformed
from arke_relay.core.endpoints import Message

Handler = Callable[[Message, float], None]
"""Handles one message of a program; the second argument is when it arrived."""


def size(value: object) -> int:
    if type(value) is not int or value < 0:
        raise Malformed("a size is a number of octets")
    return value


def text(value: object, what: str) -> str:
    if type(value) is not str:
        raise Malformed(f"{what} is text")
    return value


def check_call(call: Any, timeout: Any) -> int:
    """A call's number is one. Returns its time-out, bounded, in milliseconds."""
    if type(call) is not int or type(timeout) is not int or timeout < 0:
        raise Malformed("a request has a number and a time-out in milliseconds")
    if not 0 <= call <= MAX_ID:
        raise Malformed(f"a request's number is from 0 to {MAX_ID}")
    return min(timeout, MAX_TIMEOUT_MS)
