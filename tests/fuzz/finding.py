"""The exception for an invariant that does not hold."""

from __future__ import annotations


class Finding(AssertionError):
    """Raised by a target; the text describes the fault."""


def require(condition: object, text: str) -> None:
    """Raise Finding unless the condition is true."""
    if not condition:
        raise Finding(text)
