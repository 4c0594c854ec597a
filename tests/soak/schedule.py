"""Which faults come when: decided from a seed, before anything runs."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from random import Random

STEADY = 0
"""The host whose relay and member live from beginning to end: their memory is compared."""

HOUR = 3600

_GAP = (0.3, 3.0)  # seconds between two faults' beginnings
_REST = 1.0  # seconds that a thing is left alone after its fault
_TRIES = 10


class Thing(Enum):
    """What a fault befalls; two at once befall different things, or different hosts."""

    RELAY = "relay"
    MEMBER = "member"
    CABLE = "cable"
    CLOCK = "clock"


class Kind(Enum):
    """Every kind of fault, with how long it lasts, in seconds."""

    RELAY_KILLED = ("relay killed", Thing.RELAY, 0.2, 4.0)
    RELAY_PAUSED = ("relay paused", Thing.RELAY, 0.2, 6.0)
    RELAY_RESTARTED = ("relay restarted", Thing.RELAY, 0.0, 2.0)
    CABLE_CUT = ("cable cut", Thing.CABLE, 0.2, 6.0)
    MEMBER_KILLED = ("member killed", Thing.MEMBER, 0.2, 4.0)
    MEMBER_PAUSED = ("member paused", Thing.MEMBER, 0.2, 12.0)
    CLOCK_JUMPED = ("clock jumped", Thing.CLOCK, 0.2, 6.0)

    def __init__(self, text: str, thing: Thing, least: float, most: float) -> None:
        self.text = text
        self.thing = thing
        self.least = least
        self.most = most

    @property
    def ends_a_life(self) -> bool:
        """Whether the process that it befalls is another one afterwards."""
        return self in {Kind.RELAY_KILLED, Kind.RELAY_RESTARTED, Kind.MEMBER_KILLED}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, `at` so many seconds after the storm began. `jump` is a clock's, in seconds."""

    at: float
    kind: Kind
    host: int
    lasts: float
    jump: int = 0

    @property
    def over(self) -> float:
        return self.at + self.lasts

    def __str__(self) -> str:
        jump = f" by {self.jump:+} s" if self.jump else ""
        return f"{self.at:5.1f} s: {self.kind.text}{jump} on host {self.host}, {self.lasts:.1f} s"


def storm(random: Random, seconds: float, hosts: int) -> list[Fault]:
    """Faults that begin within `seconds`: each kind once, in any order, then any kind."""
    first = random.sample(list(Kind), len(Kind))
    faults: list[Fault] = []
    at = random.uniform(*_GAP)
    while at <= seconds:
        kind = first[-1] if first else None
        if fault := _placed(random, at, kind, hosts, faults):
            faults.append(fault)
            del first[-1:]
        at += random.uniform(*_GAP)
    return faults


def _placed(
    random: Random, at: float, wanted: Kind | None, hosts: int, others: Sequence[Fault]
) -> Fault | None:
    """A fault on something that has none at that time, if one is found."""
    for _ in range(_TRIES):
        kind = wanted or random.choice(list(Kind))
        host = random.randrange(STEADY + 1 if kind.ends_a_life else 0, hosts)
        lasts = random.uniform(kind.least, kind.most)
        jump = random.choice((-HOUR, HOUR)) if kind is Kind.CLOCK_JUMPED else 0
        busy = any(
            other.host == host and other.kind.thing is kind.thing and at < other.over + _REST
            for other in others
        )
        if not busy:
            return Fault(at, kind, host, lasts, jump)
    return None


@dataclass(frozen=True, slots=True)
class Turn:
    """A fault begins, or is over."""

    at: float
    begins: bool
    fault: Fault


def turns(faults: Sequence[Fault]) -> Iterator[Turn]:
    """Every beginning and end, in the order of time."""
    ends: list[tuple[float, int, Fault]] = []
    for number, fault in enumerate(faults):
        while ends and ends[0][0] <= fault.at:
            over, _, other = heapq.heappop(ends)
            yield Turn(over, False, other)
        yield Turn(fault.at, True, fault)
        heapq.heappush(ends, (fault.over, number, fault))
    while ends:
        over, _, other = heapq.heappop(ends)
        yield Turn(over, False, other)
