"""What must not be: each thing found is told at once, and the soak ends badly."""

from __future__ import annotations

from collections.abc import Callable

_MOST = 100


class Findings:
    """Bounded in what it keeps, not in what it counts."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.count = 0
        self.texts: list[str] = []

    def add(self, text: str) -> None:
        self.count += 1
        if len(self.texts) < _MOST:
            self.texts.append(text)
            self._say(f"FOUND: {text}")
