"""The rotation: the known backends of one cluster, their health, and the pick among them."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Collection
from typing import Final

from arke_proxy.backends.address import BackendAddress
from arke_proxy.balancing import slow_start
from arke_proxy.balancing.balancer import BackendBalancer, BackendStatus, Outcome, Warn
from arke_proxy.balancing.panic_mode import select_backends
from arke_proxy.balancing.passive_health import HEALTHY, HealthChange
from arke_proxy.balancing.power_of_two import PowerOfTwoChoices
from arke_proxy.balancing.rotation_entry import Presence, RotationEntry
from arke_proxy.errors import AllBackendsTried, NoBackend

_FAILED_CHECKS_LIMIT: Final = 2  # in a row, before a backend is ejected
_ANSWERED: Final = Outcome.ANSWERED  # compiled code looks a Final up faster than an enum's member
_PRESENT: Final = Presence.PRESENT
_DRAINING: Final = Presence.DRAINING
_EJECTION_REASONS: Final = {
    Outcome.FAILED: "a request to it failed",
    Outcome.TIMED_OUT: "it did not answer in time",
    Outcome.UNAVAILABLE: "it keeps answering 502, 503 or 504",
}

OnDeparture = Callable[[BackendAddress], None]
"""Closes idle connections to a backend whose program may be waiting for them to end."""


class Rotation(BackendBalancer):
    """Balances over known backends by power of two choices, weights and health.

    The set of backends in use is recomputed when something changes, so that a request costs two
    random draws and a comparison.
    """

    def __init__(
        self,
        cluster: str,
        warn: Warn,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
        on_departure: OnDeparture = lambda _: None,
    ) -> None:
        self._cluster = cluster
        self._warn = warn
        self._on_departure = on_departure
        self._clock = clock
        self._draw = draw
        self._known: dict[BackendAddress, RotationEntry] = {}  # draining ones too
        self._in_use: list[RotationEntry] = []
        self._choices = PowerOfTwoChoices((), draw)
        self._trials_due: list[RotationEntry] = []  # ejected; each gets one trial request
        self._recompute_at = -math.inf
        self._present = 0  # how many are not draining
        self.panicking = False
        self.members_without_address = 0  # members of the cluster that publish no http=IP:PORT

    def __len__(self) -> int:
        return self._present

    def __contains__(self, address: BackendAddress) -> bool:
        known = self._known.get(address)
        return known is not None and known.presence is not _DRAINING

    def knows(self, address: BackendAddress) -> bool:
        """Whether the backend is in the rotation or draining."""
        return address in self._known

    # Membership.

    def add(self, address: BackendAddress, weight: float = 1.0) -> None:
        """Add a backend, or change its weight."""
        known = self._known.get(address)
        if known is None:
            known = self._known[address] = RotationEntry(address, weight, self._clock())
            self._present += 1
        elif known.presence is _DRAINING:
            known.since = self._clock()
            known.health.recover()
            self._present += 1
        known.presence = Presence.PRESENT
        known.weight = weight
        self._recompute_at = -math.inf

    def remove(self, address: BackendAddress) -> None:
        """Send no further request to a backend; those that have started may finish."""
        known = self._known.get(address)
        if known is None or known.presence is _DRAINING:
            return
        self._present -= 1
        known.presence = Presence.DRAINING
        known.in_use = False
        self._on_departure(address)
        if not known.outstanding:
            del self._known[address]
        self._recompute_at = -math.inf

    def mark_departed(self, address: BackendAddress) -> None:
        """Keep no idle connection to a backend that may still be picked, but whose member left."""
        self._known[address].presence = Presence.DEPARTED
        self._on_departure(address)

    # Picking.

    def pick_now(
        self, tried: Collection[BackendAddress], preferred: BackendAddress | None = None
    ) -> BackendAddress:
        now = self._clock()
        if now >= self._recompute_at:
            self._recompute(now)
        if preferred is not None and preferred not in tried:
            known = self._known.get(preferred)
            if known is not None and known.in_use:
                return preferred
        if tried:
            return self._pick_for_retry(tried)
        if self._trials_due:  # never with a request that has failed once already
            return self._start_trial(now)
        in_use = self._in_use
        if len(in_use) > 1:
            return self._choices.pick()
        if not in_use:
            raise self._no_backend()
        return in_use[0].address

    async def pick(
        self, tried: Collection[BackendAddress], preferred: BackendAddress | None = None
    ) -> BackendAddress:
        return self.pick_now(tried, preferred)

    def _pick_for_retry(self, tried: Collection[BackendAddress]) -> BackendAddress:
        candidates = [one for one in self._in_use if one.address not in tried]
        if not candidates:  # an ejected backend is better than none
            candidates = [
                one
                for one in self._known.values()
                if one.presence is not _DRAINING and one.address not in tried
            ]
        if not candidates:
            if not self._present:
                raise self._no_backend()
            raise AllBackendsTried(f"Cluster {self._cluster} has no other backend.")

        def order(one: RotationEntry) -> tuple[bool, float, float]:
            load = one.outstanding / one.effective_weight
            return not one.health.reachable, load, self._draw()

        return min(candidates, key=order).address

    def _start_trial(self, now: float) -> BackendAddress:
        one = self._trials_due.pop()
        one.health.start_trial(now)
        self._recompute_at = min(self._recompute_at, one.health.retry_at)
        return one.address

    def _no_backend(self) -> NoBackend:
        if self.members_without_address:
            reason = "none of its members publishes http=IP:PORT"
            return NoBackend(f"Cluster {self._cluster} has no backend: {reason}.")
        return NoBackend(f"Cluster {self._cluster} has no members.")

    # Outcomes of requests.

    def request_started(self, address: BackendAddress) -> None:
        known = self._known.get(address)
        if known is not None:
            known.outstanding += 1

    def request_ended(self, address: BackendAddress, outcome: Outcome) -> None:
        known = self._known.get(address)
        if known is None:  # removed while the proxy connected to it
            self._on_departure(address)
            return
        if known.outstanding:  # 0 if the request started before the backend was added
            known.outstanding -= 1
        if outcome is not _ANSWERED or known.health.state is not HEALTHY:
            self._record(known, outcome)
        if known.presence is not _PRESENT:
            self._on_departure(address)
            if known.presence is _DRAINING and not known.outstanding:
                del self._known[address]

    def connect_failed(self, address: BackendAddress) -> None:
        known = self._known.get(address)
        if known is not None and known.health.failed(self._clock(), reachable=False):
            self._ejected(known, "connecting to it failed")

    def _record(self, one: RotationEntry, outcome: Outcome) -> None:
        change = one.health.record(outcome, self._clock(), in_use=one.in_use)
        if change is HealthChange.EJECTED:
            self._ejected(one, _EJECTION_REASONS[outcome])
        elif change is HealthChange.RECOVERED:
            self._recovered(one)

    # Results of active health checks.

    def check_failed(self, address: BackendAddress, fault: str, *, reachable: bool) -> None:
        """Count a failed check. After two in a row only a passed check ends the ejection."""
        known = self._known.get(address)
        if known is not None:
            known.failed_checks += 1
            at_limit = known.failed_checks >= _FAILED_CHECKS_LIMIT
            if at_limit and known.health.fail_check(reachable=reachable):
                self._ejected(known, f"health check failed: {fault}")

    def check_passed(self, address: BackendAddress) -> None:
        """Return the backend to rotation, whatever ejected it."""
        known = self._known.get(address)
        if known is not None:
            known.failed_checks = 0
            if known.health.ejected:
                known.health.recover()
                self._recovered(known)

    def statuses(self) -> list[BackendStatus]:
        now = self._clock()
        if now >= self._recompute_at:
            self._recompute(now)
        return [
            BackendStatus(
                address=one.address,
                weight=one.effective_weight,
                outstanding=one.outstanding,
                ejected=one.health.ejected,
                in_use=one.in_use,
            )
            for one in self._known.values()
            if one.presence is not _DRAINING
        ]

    # The set of backends in use.

    def _ejected(self, one: RotationEntry, reason: str) -> None:
        one.in_use = False
        self._recompute_at = -math.inf
        key = (one.address, "ejected")
        self._warn(key, "backend ejected from rotation", backend=str(one.address), reason=reason)

    def _recovered(self, one: RotationEntry) -> None:
        one.since = self._clock()
        self._recompute_at = -math.inf
        key = (one.address, "recovered")
        self._warn(key, "backend returned to rotation", backend=str(one.address))

    def _recompute(self, now: float) -> None:
        present = [one for one in self._known.values() if one.presence is not _DRAINING]
        in_use, panicking = select_backends(present)
        self._recompute_at = math.inf
        self._use(in_use, now)
        self._trials_due = []
        for one in present:
            health = one.health
            if health.retry_at > now:
                self._recompute_at = min(self._recompute_at, health.retry_at)
            elif health.ejected:
                self._trials_due.append(one)
        if panicking and not self.panicking:
            ejected = sum(one.health.ejected for one in present)
            self._warn(
                (self._cluster, "panic"),
                "panic mode: too many backends are ejected, so all reachable ones are used",
                cluster=self._cluster,
                ejected=ejected,
                backends=len(present),
            )
        self.panicking = panicking

    def _use(self, in_use: list[RotationEntry], now: float) -> None:
        for one in self._in_use:
            one.in_use = False
        self._in_use = in_use
        for one in in_use:
            one.in_use = True
            age = now - one.since
            one.effective_weight = slow_start.effective_weight(one.weight, age)
            if age < slow_start.DURATION:
                self._recompute_at = now + slow_start.UPDATE_INTERVAL
        self._choices = PowerOfTwoChoices(in_use, self._draw)
