"""Failed attempts of one request, and whether it may be sent to another backend."""

from __future__ import annotations

from arke_proxy.backends.address import BackendAddress
from arke_proxy.balancing.retry import RetryBudget
from arke_proxy.errors import BackendsUnreachable

_MAX_ATTEMPTS = 3


class FailedAttempts:
    """Which backends failed for one request; most requests never need this object."""

    __slots__ = ("_budget", "_count", "_in_budget", "tried")

    def __init__(self, budget: RetryBudget) -> None:
        self._budget = budget
        self._count = 0
        self._in_budget = False  # the retry budget counts this request
        self.tried: dict[BackendAddress, str] = {}  # address → what happened there

    def add(self, address: BackendAddress, reason: str) -> None:
        """Record a failed attempt. Raises BackendsUnreachable if no other attempt may follow."""
        self._count += 1
        self.tried[address] = reason
        if self._count >= _MAX_ATTEMPTS:
            raise self.error()
        if not self._in_budget:
            self._in_budget = self._budget.acquire()
            if not self._in_budget:
                raise self.error()

    def add_stale(self) -> None:
        """Record an attempt on an idle connection that the backend was just closing."""
        self._count += 1

    def release(self) -> None:
        """Tell the retry budget that this request is not retried any more."""
        if self._in_budget:
            self._in_budget = False
            self._budget.release()

    def error(self) -> BackendsUnreachable:
        """Return the error for the client, which lists all attempts."""
        attempts = "; ".join(f"{address} {reason}" for address, reason in self.tried.items())
        return BackendsUnreachable(f"No backend answered: {attempts}.")
