"""Count the outcomes, events and pairs of faults of one run, or of many together."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from simulation.faults import PAIRS

OUTCOMES = (
    "answered",
    "faulted",
    "overloaded",
    "timed_out",
    "no_such_cluster",
    "no_such_member",
    "member_lost",
    "cancelled",
    "abandoned",
    "connection_lost",
    "never_started",
    "answer_without_room",
    "no_room",
    "opened",
)
ENDINGS = (
    "SEND_CLOSED",
    "CLOSED",
    "SEND_CLOSED here",
    "SEND_CLOSED there",
    "CLOSED here",
    "CLOSED there",
    "ABORTED here",
    "ABORTED: by the other end",
    "ABORTED: program detached",
    "ABORTED: node lost",
    "ABORTED: request ended",
    "program detached: closed",
    "program detached: killed",
)
SEEN = (
    "refused",
    "handler cancelled",
    "expired before its handler started",
    "fan-out received",
    "watched joins",
    "tunnel bytes",
    "retries",
    "drop: broadcast_queue_full",
    "drop: expired_in_transit",
    "drop: late_reply",
    "drop: unknown_tunnel",
    "drop: reply_queue_full",
    "drop: stale_session",
)


@dataclass
class Coverage:
    """Counts by name. `seen` counts events that a useful set of runs must contain."""

    outcomes: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    overlaps: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, other: Coverage) -> None:
        self.outcomes += other.outcomes
        self.endings += other.endings
        self.seen += other.seen
        self.overlaps += other.overlaps

    @property
    def missing(self) -> list[str]:
        """Descriptions of the outcomes, events and pairs of faults that never occurred."""
        return [
            *(f"no request ended {name}" for name in OUTCOMES if not self.outcomes[name]),
            *(f"no tunnel ended {name}" for name in ENDINGS if not self.endings[name]),
            *(f"never seen: {name}" for name in SEEN if not self.seen[name]),
            *(f"{one} and {other} never overlapped" for one, other in self.missing_pairs),
        ]

    @property
    def missing_pairs(self) -> list[tuple[str, str]]:
        return [pair for pair in PAIRS if not self.overlaps[pair]]

    def table(self) -> list[str]:
        lines = []
        for title, counts in (
            ("requests ended", self.outcomes),
            ("tunnels ended", self.endings),
            ("seen", self.seen),
        ):
            lines.append(title)
            lines += [f"  {count:>10}  {name}" for name, count in sorted(counts.items())]
        lines.append("runs in which two kinds of faults overlapped")
        lines += [f"  {self.overlaps[pair]:>10}  {pair[0]} + {pair[1]}" for pair in PAIRS]
        return lines
