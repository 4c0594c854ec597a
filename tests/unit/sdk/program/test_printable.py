"""Untrusted text for a log, a terminal or a page."""

from __future__ import annotations

from arke.program.printable import printable


def test_unprintable_characters_are_replaced() -> None:
    assert printable("ä b\r\n\x1b[2J\u2028") == "ä b???[2J?"
    assert printable("ä b") == "ä b"
