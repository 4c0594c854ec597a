"""One sender's messages reach one receiver in the order sent, each at most once."""

from __future__ import annotations

from soak.questions import Question


class Ordering:
    """What came, by whom it was sent."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self.count = 0

    def hear(self, question: Question) -> str | None:
        """Take note of a message; what is wrong with it, if anything is."""
        self.count += 1
        last = self._last.get(question.caller, 0)
        self._last[question.caller] = max(last, question.number)
        if question.number > last:
            return None
        return f"{question.kind} {question.number} of {question.caller} came behind {last}"
