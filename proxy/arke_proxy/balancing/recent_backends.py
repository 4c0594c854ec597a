"""Backends that members have recently named in answer to the proxy's requests."""

from __future__ import annotations

from typing import Final

from arke_proxy.backends.address import BackendAddress
from arke_proxy.balancing.balancer import BackendStatus, Outcome
from arke_proxy.balancing.passive_health import HEALTHY, BackendHealth

_MAX_AGE: Final = 60.0  # seconds; an older address may belong to another program by now
_MAX_BACKENDS: Final = 1000
_ANSWERED: Final = Outcome.ANSWERED


class _RecentBackend:
    __slots__ = ("health", "last_seen", "outstanding")

    def __init__(self, now: float) -> None:
        self.last_seen = now  # when a member named it, or it answered a request
        self.outstanding = 0  # requests of this worker
        self.health = BackendHealth()


class RecentBackends:
    """The health of backends that appear and disappear without notice.

    Does not read the clock: the caller passes the time.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[BackendAddress, _RecentBackend] = {}  # the oldest first

    def add(self, address: BackendAddress, now: float) -> None:
        """Record that a member has named a backend."""
        known = self._known.get(address)
        if known is not None:
            known.last_seen = now
            return
        if len(self._known) >= _MAX_BACKENDS:
            del self._known[next(iter(self._known))]
        self._known[address] = _RecentBackend(now)

    def usable(self, address: BackendAddress, now: float) -> bool:
        """Whether a member named the backend recently and it is not ejected."""
        known = self._known.get(address)
        return known is not None and now - known.last_seen < _MAX_AGE and not known.health.ejected

    def avoid(self, address: BackendAddress, now: float) -> bool:
        """Whether to use any other backend instead. If not, a trial may start with this request."""
        known = self._known.get(address)
        if known is None or known.health.state is HEALTHY or not known.health.ejected:
            return False
        if now < known.health.retry_at:
            return True
        known.health.start_trial(now)
        return False

    def use_ejected(self, address: BackendAddress, now: float) -> None:
        """Send a request to an ejected backend, because members name no other one."""
        if (known := self._known.get(address)) and known.health.ejected:
            known.health.start_early_trial()
            known.last_seen = now

    def request_started(self, address: BackendAddress) -> None:
        if known := self._known.get(address):
            known.outstanding += 1

    def request_ended(self, address: BackendAddress, outcome: Outcome, now: float) -> None:
        """Record the outcome of a request."""
        known = self._known.get(address)
        if known is None:
            return
        if known.outstanding:
            known.outstanding -= 1
        if outcome is _ANSWERED:
            known.last_seen = now  # a client with a sticky cookie may use it without asking
            if known.health.state is HEALTHY:
                return
        known.health.record(outcome, now)

    def connect_failed(self, address: BackendAddress, now: float) -> None:
        self.add(address, now)
        self._known[address].health.failed(now, reachable=False)

    def statuses(self, now: float) -> list[BackendStatus]:
        """Return the backends that members have named recently."""
        return [
            BackendStatus(
                address=address,
                weight=1.0,
                outstanding=one.outstanding,
                ejected=one.health.ejected,
                in_use=not one.health.ejected,
            )
            for address, one in self._known.items()
            if now - one.last_seen < _MAX_AGE
        ]
