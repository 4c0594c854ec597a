"""Backends that are known, and the choice among them."""

from __future__ import annotations

import math
import random
import time
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

from arke_proxy.backends.address import BackendAddress
from arke_proxy.balancing.balancer import BackendBalancer, BackendStatus, Outcome
from arke_proxy.balancing.passive_health import BackendHealth
from arke_proxy.errors import AllTried, NoBackend

_RAMP: Final = 10.0  # seconds until a newcomer gets its full share: caches and compilers warm up
_LEAST: Final = 0.1  # of its share, for a start
_STEP: Final = 0.1  # seconds between two looks at those that are warming up
_FAILED_CHECKS: Final = 2  # in a row, until one counts
_ANSWERED: Final = Outcome.ANSWERED  # an enum's member is slow to look up
_WHY: Final = {
    Outcome.FAILED: "it broke off a request",
    Outcome.TIMED_OUT: "it did not answer in time",
    Outcome.UNAVAILABLE: "it keeps answering 502 to 504",
}

Warn = Callable[[object, str], None]
"""Tells people: about what, and a sentence."""

Departed = Callable[[BackendAddress], None]
"""Told of a backend whose program may be waiting for idle connections to end."""


class _BackEnd:
    """One backend, and what the proxy has at it."""

    __slots__ = (
        "address",
        "departed",
        "failed_checks",
        "health",
        "leaving",
        "outstanding",
        "share",
        "since",
        "used",
        "weight",
    )

    def __init__(self, address: BackendAddress, weight: float, now: float) -> None:
        self.address = address
        self.weight = weight
        self.share = weight  # less than its weight while it warms up
        self.since = now
        self.outstanding = 0  # requests
        self.health = BackendHealth()
        self.failed_checks = 0  # in a row
        self.used = False  # it can be drawn
        self.leaving = False  # no longer there, but requests of it are
        self.departed = False  # no connection to it is kept: its member has left


class Rotation(BackendBalancer):
    """Draws two backends, by weight, and takes the one with less outstanding for its weight.

    The counts are the proxy's own; latency is no signal, as whoever fails fast looks fast. Who is
    in is worked out when something changes, so that a request costs two draws and a comparison.
    When more than half are out, more is wrong than they are, and the rest could not bear the load:
    then only those that cannot be connected to stay out, and if there are no others, nobody.
    """

    def __init__(
        self,
        cluster: str,
        say: Warn,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
        departed: Departed = lambda _: None,
    ) -> None:
        self._cluster = cluster
        self._say = say
        self._departed = departed
        self._clock = clock
        self._draw = draw
        self._known: dict[BackendAddress, _BackEnd] = {}  # those that are leaving too
        self._used: list[_BackEnd] = []
        self._edges: list[float] = []  # running sums of their shares
        self._on_trial: list[_BackEnd] = []  # due for one request each
        self._due = -math.inf  # when to work all this out again
        self._present = 0  # how many are not leaving
        self.panicking = False
        self.silent = 0  # members of the cluster that do not say where they could be reached

    def __len__(self) -> int:
        return self._present

    def __contains__(self, address: BackendAddress) -> bool:
        known = self._known.get(address)
        return known is not None and not known.leaving

    def knows(self, address: BackendAddress) -> bool:
        """Say whether it is there, or leaving and still at work."""
        return address in self._known

    # Who is there.

    def add(self, address: BackendAddress, weight: float = 1.0) -> None:
        """Let one in, or change its weight."""
        known = self._known.get(address)
        if known is None:
            known = self._known[address] = _BackEnd(address, weight, self._clock())
            self._present += 1
        elif known.leaving:
            known.leaving = False
            known.since = self._clock()
            known.health.restore()
            self._present += 1
        known.departed = False
        known.weight = weight
        self._due = -math.inf

    def remove(self, address: BackendAddress) -> None:
        """Choose it no more; what it was sent may end."""
        known = self._known.get(address)
        if known is None or known.leaving:
            return
        self._present -= 1
        known.leaving = True
        known.used = False
        self.depart(address)
        if not known.outstanding:
            del self._known[address]
        self._due = -math.inf

    def depart(self, address: BackendAddress) -> None:
        """Have no connection kept to one whose member has left, though it may be chosen still."""
        self._known[address].departed = True
        self._departed(address)

    # The choice.

    def pick_now(
        self, tried: Collection[BackendAddress], preferred: BackendAddress | None = None
    ) -> BackendAddress:
        now = self._clock()
        if now >= self._due:
            self._work_out(now)
        if preferred is not None and preferred not in tried:
            known = self._known.get(preferred)
            if known is not None and known.used:
                return preferred
        if tried:
            return self._another(tried)
        if self._on_trial:  # never with a request that has failed once already
            return self._next_on_trial(now)
        used = self._used
        if len(used) > 1:
            return self._less_busy(used)
        if not used:
            raise self._none()
        return used[0].address

    async def pick(
        self, tried: Collection[BackendAddress], preferred: BackendAddress | None = None
    ) -> BackendAddress:
        return self.pick_now(tried, preferred)

    def _less_busy(self, used: Sequence[_BackEnd]) -> BackendAddress:
        """Draw two."""
        last = len(used) - 1
        edges = self._edges
        draw = self._draw
        index = bisect_right(edges, draw() * edges[last], 0, last)
        one = used[index]
        if last == 1:
            other = used[1 - index]
        else:  # drawn from the rest
            mark = draw() * (edges[last] - one.share)
            if mark >= edges[index] - one.share:
                mark += one.share
            other = used[bisect_right(edges, mark, 0, last)]
        if one.outstanding * other.share <= other.outstanding * one.share:
            return one.address
        return other.address

    def _another(self, tried: Collection[BackendAddress]) -> BackendAddress:
        left = [one for one in self._used if one.address not in tried]
        if not left:  # rather one that is out than none
            left = [
                one for one in self._known.values() if not one.leaving and one.address not in tried
            ]
        if not left:
            if not self._present:
                raise self._none()
            raise AllTried(f"Cluster {self._cluster} has no other backend.")

        def order(one: _BackEnd) -> tuple[bool, float, float]:
            return not one.health.reachable, one.outstanding / one.share, self._draw()

        return min(left, key=order).address

    def _next_on_trial(self, now: float) -> BackendAddress:
        one = self._on_trial.pop()
        one.health.trial(now)
        self._due = min(self._due, one.health.until)
        return one.address

    def _none(self) -> NoBackend:
        if self.silent:
            story = f"Nobody serves cluster {self._cluster}: no member publishes http=IP:PORT."
            return NoBackend(story)
        return NoBackend(f"Nobody serves cluster {self._cluster}.")

    # What became of it.

    def request_started(self, address: BackendAddress) -> None:
        known = self._known.get(address)
        if known is not None:
            known.outstanding += 1

    def request_ended(self, address: BackendAddress, outcome: Outcome) -> None:
        known = self._known.get(address)
        if known is None:  # it left while it was being connected to
            self._departed(address)
            return
        if known.outstanding:  # else it was begun before the backend was known
            known.outstanding -= 1
        if outcome is not _ANSWERED or not known.health.spotless:
            self._judge(known, outcome)
        if known.departed:
            self._departed(address)
            if known.leaving and not known.outstanding:
                del self._known[address]

    def connect_failed(self, address: BackendAddress) -> None:
        known = self._known.get(address)
        if known is not None and known.health.failed(self._clock(), reachable=False):
            self._goes_out(known, "it cannot be reached")

    def _judge(self, one: _BackEnd, outcome: Outcome) -> None:
        health = one.health
        if outcome is _ANSWERED:
            # While it is out, an answer to what was sent before says nothing.
            if health.barred or (health.out and not health.tested and not one.used):
                return
            self._comes_back(one)
        elif outcome is Outcome.UNAVAILABLE:
            if health.unavailable(self._clock()):
                self._goes_out(one, _WHY[outcome])
        elif outcome is not Outcome.ABANDONED and health.failed(self._clock()):
            self._goes_out(one, _WHY[outcome])

    # What checks have found out.

    def check_failed(self, address: BackendAddress, fault: str, *, reachable: bool) -> None:
        """Learn that a check failed; twice in a row, and only a check brings it back."""
        known = self._known.get(address)
        if known is not None:
            known.failed_checks += 1
            if known.failed_checks >= _FAILED_CHECKS and known.health.bar(reachable=reachable):
                self._goes_out(known, f"its check {fault}")

    def check_passed(self, address: BackendAddress) -> None:
        """Learn that a check went well; whatever was held against the backend is forgotten."""
        known = self._known.get(address)
        if known is not None:
            known.failed_checks = 0
            if known.health.out:
                self._comes_back(known)

    # Who is in.

    def statuses(self) -> list[BackendStatus]:
        now = self._clock()
        if now >= self._due:
            self._work_out(now)
        return [
            BackendStatus(one.address, one.share, one.outstanding, one.health.out, one.used)
            for one in self._known.values()
            if not one.leaving
        ]

    def _goes_out(self, one: _BackEnd, why: str) -> None:
        one.used = False
        self._due = -math.inf
        self._say((one.address, "out"), f"backend {one.address} is out of rotation: {why}")

    def _comes_back(self, one: _BackEnd) -> None:
        if one.health.out:
            one.since = self._clock()
            self._due = -math.inf
            self._say((one.address, "back"), f"backend {one.address} is back in rotation")
        one.health.restore()

    def _work_out(self, now: float) -> None:
        present = [one for one in self._known.values() if not one.leaving]
        well = [one for one in present if not one.health.out]
        panicking = 2 * len(well) < len(present)
        if panicking:
            reachable = [one for one in present if one.health.reachable]
            self._use(reachable or present, now)
        else:
            self._use(well, now)
        self._on_trial = [one for one in present if one.health.out and one.health.until <= now]
        pauses = (one.health.until for one in present if one.health.until > now)
        self._due = min(self._due, min(pauses, default=math.inf))
        if panicking and not self.panicking:
            self._say(
                (self._cluster, "panic"),
                f"{len(present) - len(well)} of {len(present)} backends of cluster "
                f"{self._cluster} are out of rotation: those that can be reached are used anyway",
            )
        self.panicking = panicking

    def _use(self, used: Iterable[_BackEnd], now: float) -> None:
        for one in self._used:
            one.used = False
        self._used = list(used)
        self._edges = []
        self._due = math.inf
        edge = 0.0
        for one in self._used:
            one.used = True
            age = now - one.since
            one.share = one.weight
            if age < _RAMP:
                one.share *= max(_LEAST, age / _RAMP)
                self._due = now + _STEP
            edge += one.share
            self._edges.append(edge)
