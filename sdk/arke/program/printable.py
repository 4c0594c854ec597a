"""Make untrusted text safe for one line of a log, a terminal or a page."""

from __future__ import annotations


def printable(text: str) -> str:
    """Replace control characters, line ends and other unprintable characters with `?`."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "?" for character in text)
