"""What all callers counted, taken together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from soak.questions import HASTY

BOUND_TO_A_RELAY = ("tunnel read", "tunnel sent", "tunnel closed", "status", "members")
"""What a relay that leaves ends, however politely: tunnels that run through it, and what it was
asked itself, for which it has five seconds to come back."""


class Tally:
    """The sum of some reports."""

    def __init__(self, reports: Iterable[dict[str, Any]]) -> None:
        self.started: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.hung: Counter[str] = Counter()
        self.open: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        for report in reports:
            self.started.update(report["started"])
            self.answered.update(report["answered"])
            self.failed.update(report["failed"])
            self.hung.update(report["hung"])
            self.open.update(report["open"])
            self.wrong.update(report["wrong"])

    def failures(self, kind: str) -> int:
        return sum(count for name, count in self.failed.items() if _kind(name) == kind)

    def unaccounted(self) -> Iterator[str]:
        """What was started and has no outcome, or more than one."""
        for kind, started in self.started.items():
            ended = self.answered[kind] + self.failures(kind)
            if ended != started:
                yield f"{kind}: {started} started, {ended} ended"

    def failed_since(self, before: Tally, *, spared: Iterable[str] = ()) -> Counter[str]:
        """What failed that must not when nothing was broken: all but the hasty and the spared."""
        more = self.failed - before.failed
        late = f"{HASTY} RequestTimeout"
        return Counter(
            {
                name: count
                for name, count in more.items()
                if name != late and _kind(name) not in set(spared)
            }
        )

    def table(self) -> list[str]:
        """A line for each kind."""
        lines = [f"{'':16}{'started':>10}{'answered':>10}{'failed':>9}{'hung':>6}"]
        for kind, started in sorted(self.started.items()):
            types = ", ".join(
                f"{name.removeprefix(kind).strip()} {count}"
                for name, count in sorted(self.failed.items())
                if _kind(name) == kind
            )
            numbers = f"{started:10,}{self.answered[kind]:10,}{self.failures(kind):9,}"
            lines.append(f"{kind:16}{numbers}{self.hung[kind]:6,}  {types}".rstrip())
        return lines


def _kind(failure: str) -> str:
    return failure.rpartition(" ")[0]
