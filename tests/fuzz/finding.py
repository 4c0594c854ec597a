"""A promise that an input broke."""

from __future__ import annotations


class Finding(AssertionError):
    """Raised by a target; the text says which promise."""


def promise(kept: object, text: str) -> None:
    """Raises Finding unless the promise is kept."""
    if not kept:
        raise Finding(text)
