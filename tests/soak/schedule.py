"""The schedule of faults, drawn from a seed before anything runs."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from random import Random

STEADY_HOST = 0
"""The host whose relay and member are never restarted: their memory is checked for growth."""

HOUR = 3600

_GAP = (0.3, 3.0)  # seconds between the starts of two faults
_QUIET_TIME = 1.0  # seconds without a fault for a target after a fault
_MAX_TRIES = 10


class FaultTarget(Enum):
    """What a fault affects. Simultaneous faults have different targets or hosts."""

    RELAY = "relay"
    MEMBER = "member"
    CABLE = "cable"
    CLOCK = "clock"


class Kind(Enum):
    """The kinds of faults, with the shortest and the longest duration in seconds."""

    RELAY_KILLED = ("relay killed", FaultTarget.RELAY, 0.2, 4.0)
    RELAY_PAUSED = ("relay paused", FaultTarget.RELAY, 0.2, 6.0)
    RELAY_RESTARTED = ("relay restarted", FaultTarget.RELAY, 0.0, 2.0)
    CABLE_CUT = ("cable cut", FaultTarget.CABLE, 0.2, 6.0)
    MEMBER_KILLED = ("member killed", FaultTarget.MEMBER, 0.2, 4.0)
    MEMBER_PAUSED = ("member paused", FaultTarget.MEMBER, 0.2, 12.0)
    CLOCK_JUMPED = ("clock jumped", FaultTarget.CLOCK, 0.2, 6.0)

    def __init__(
        self, text: str, target: FaultTarget, min_duration: float, max_duration: float
    ) -> None:
        self.text = text
        self.target = target
        self.min_duration = min_duration
        self.max_duration = max_duration

    @property
    def ends_the_process(self) -> bool:
        """Whether the affected process is replaced by a new one."""
        return self in {Kind.RELAY_KILLED, Kind.RELAY_RESTARTED, Kind.MEMBER_KILLED}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, `at` seconds after the start of the storm. `jump` is for clocks, in seconds."""

    at: float
    kind: Kind
    host: int
    duration: float
    jump: int = 0

    @property
    def end(self) -> float:
        return self.at + self.duration

    def __str__(self) -> str:
        jump = f" by {self.jump:+} s" if self.jump else ""
        return (
            f"{self.at:5.1f} s: {self.kind.text}{jump} on host {self.host}, {self.duration:.1f} s"
        )


def storm(random: Random, seconds: float, hosts: int) -> list[Fault]:
    """Return faults that start within `seconds`: first each kind once, then random kinds."""
    first = random.sample(list(Kind), len(Kind))
    faults: list[Fault] = []
    at = random.uniform(*_GAP)
    while at <= seconds:
        kind = first[-1] if first else None
        if fault := _random_fault(random, at, kind, hosts, faults):
            faults.append(fault)
            del first[-1:]
        at += random.uniform(*_GAP)
    return faults


def _random_fault(
    random: Random, at: float, wanted: Kind | None, hosts: int, others: Sequence[Fault]
) -> Fault | None:
    """Return a fault for a target without a fault at that time, if a free target is found."""
    for _ in range(_MAX_TRIES):
        kind = wanted or random.choice(list(Kind))
        host = random.randrange(STEADY_HOST + 1 if kind.ends_the_process else 0, hosts)
        duration = random.uniform(kind.min_duration, kind.max_duration)
        jump = random.choice((-HOUR, HOUR)) if kind is Kind.CLOCK_JUMPED else 0
        busy = any(
            other.host == host and other.kind.target is kind.target and at < other.end + _QUIET_TIME
            for other in others
        )
        if not busy:
            return Fault(at, kind, host, duration, jump)
    return None


@dataclass(frozen=True, slots=True)
class FaultEvent:
    """The start or the end of a fault."""

    at: float
    starts: bool
    fault: Fault


def fault_events(faults: Sequence[Fault]) -> Iterator[FaultEvent]:
    """Yield the starts and ends of all faults in the order of their times."""
    ends: list[tuple[float, int, Fault]] = []
    for number, fault in enumerate(faults):
        while ends and ends[0][0] <= fault.at:
            over, _, other = heapq.heappop(ends)
            yield FaultEvent(over, False, other)
        yield FaultEvent(fault.at, True, fault)
        heapq.heappush(ends, (fault.end, number, fault))
    while ends:
        over, _, other = heapq.heappop(ends)
        yield FaultEvent(over, False, other)
