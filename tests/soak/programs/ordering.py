"""Check that the messages of each sender arrive in order, each at most once."""

from __future__ import annotations

from soak.messages import MessageHead


class Ordering:
    """The last number received from each sender."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self.count = 0

    def check(self, head: MessageHead) -> str | None:
        """Record a message. Returns a description if it is out of order or repeated."""
        self.count += 1
        last = self._last.get(head.caller, 0)
        self._last[head.caller] = max(last, head.number)
        if head.number > last:
            return None
        return f"{head.kind} {head.number} of {head.caller} arrived after {last}"
