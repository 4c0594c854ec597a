"""The counts of all callers together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from soak.messages import SHORT_TIMEOUT

BOUND_TO_THE_RELAY = ("tunnel read", "tunnel sent", "tunnel closed", "status", "members")
"""Operations that fail when their relay restarts, even gracefully: tunnels through it, and queries
of the relay itself, which wait at most 5 s for the new relay."""


class Counts:
    """The sum of the callers' reports."""

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
        """Yield the kinds whose operations do not each have exactly one outcome."""
        for kind, started in self.started.items():
            ended = self.answered[kind] + self.failures(kind)
            if ended != started:
                yield f"{kind}: {started} started, {ended} ended"

    def failed_since(self, before: Counts, *, allowed: Iterable[str] = ()) -> Counter[str]:
        """Return the failures since `before`, without short time-outs and the allowed kinds."""
        more = self.failed - before.failed
        late = f"{SHORT_TIMEOUT} RequestTimeout"
        return Counter(
            {
                name: count
                for name, count in more.items()
                if name != late and _kind(name) not in set(allowed)
            }
        )

    def table(self) -> list[str]:
        """Return a line for each kind of operation."""
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
