"""Findings: each is printed at once, and makes the soak fail."""

from __future__ import annotations

from collections.abc import Callable

_MAX_TEXTS = 100


class Findings:
    """The first 100 findings, and the count of all."""

    def __init__(self, print_line: Callable[[str], None]) -> None:
        self._print = print_line
        self.count = 0
        self.texts: list[str] = []

    def add(self, text: str) -> None:
        self.count += 1
        if len(self.texts) < _MAX_TEXTS:
            self.texts.append(text)
            self._print(f"FOUND: {text}")
