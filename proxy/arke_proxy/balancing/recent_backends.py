"""Backends that a cluster has named when it was asked, as far as they are remembered."""

from __future__ import annotations

from typing import Final

from arke_proxy.backends.address import BackendAddress
from arke_proxy.balancing.balancer import BackendStatus, Outcome
from arke_proxy.balancing.passive_health import BackendHealth

_SECONDS: Final = 60.0  # since it was named, or answered; older ones may be somebody else's by now
_MOST: Final = 1000  # addresses remembered


class _BackEnd:
    __slots__ = ("health", "last", "outstanding")

    def __init__(self, now: float) -> None:
        self.last = now  # when the cluster named it, or it answered
        self.outstanding = 0  # requests of this proxy
        self.health = BackendHealth()


class RecentBackends:
    """What is known of addresses that come and go without notice. The caller passes the time."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[BackendAddress, _BackEnd] = {}  # the order of becoming known

    def note(self, address: BackendAddress, now: float) -> None:
        """Learn that the cluster has named one."""
        known = self._known.get(address)
        if known is not None:
            known.last = now
            return
        if len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]
        self._known[address] = _BackEnd(now)

    def lately(self, address: BackendAddress, now: float) -> bool:
        """Say whether the cluster named it a moment ago, and nothing is wrong with it."""
        known = self._known.get(address)
        return known is not None and now - known.last < _SECONDS and not known.health.out

    def avoid(self, address: BackendAddress, now: float) -> bool:
        """Say whether to prefer any other; if not, the caller is going to try this one."""
        known = self._known.get(address)
        if known is None or not known.health.out:
            return False
        if now < known.health.until:
            return True
        known.health.trial(now)
        return False

    def risk(self, address: BackendAddress, now: float) -> None:
        """Know that one is tried although it is out: the cluster names nothing else."""
        if (known := self._known.get(address)) and known.health.out:
            known.health.tested = True
            known.last = now

    def request_started(self, address: BackendAddress) -> None:
        if known := self._known.get(address):
            known.outstanding += 1

    def request_ended(self, address: BackendAddress, outcome: Outcome, now: float) -> None:
        """Learn what became of a request."""
        known = self._known.get(address)
        if known is None:
            return
        if known.outstanding:
            known.outstanding -= 1
        health = known.health
        match outcome:
            case Outcome.ANSWERED:
                known.last = now  # visitors who come back to it need not ask
                if not health.spotless and (health.tested or not health.out):
                    health.restore()
            case Outcome.UNAVAILABLE:
                health.unavailable(now)
            case Outcome.FAILED | Outcome.TIMED_OUT:
                health.failed(now)

    def connect_failed(self, address: BackendAddress, now: float) -> None:
        self.note(address, now)
        self._known[address].health.failed(now, reachable=False)

    def statuses(self, now: float) -> list[BackendStatus]:
        """Return those that the cluster named a moment ago."""
        return [
            BackendStatus(address, 1.0, one.outstanding, one.health.out, not one.health.out)
            for address, one in self._known.items()
            if now - one.last < _SECONDS
        ]
