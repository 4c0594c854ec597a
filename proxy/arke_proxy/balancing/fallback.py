"""Choosing from what members publish, or asking them where none does."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from arke_proxy.backends.address import BackendAddress
from arke_proxy.balancing.ask import AskBalancer
from arke_proxy.balancing.balancer import BackendBalancer, BackendStatus, Outcome
from arke_proxy.balancing.members import MembersBalancer


class FallbackBalancer(BackendBalancer):
    """Uses `members` while any of them publishes an address, and `ask` otherwise."""

    def __init__(self, members: MembersBalancer, ask: AskBalancer) -> None:
        self._members = members
        self._ask = ask

    def pick_now(
        self, tried: Collection[BackendAddress], preferred: BackendAddress | None = None
    ) -> BackendAddress | None:
        return self._now().pick_now(tried, preferred)

    async def pick(
        self, tried: Collection[BackendAddress], preferred: BackendAddress | None = None
    ) -> BackendAddress:
        return await self._now().pick(tried, preferred)

    # What was begun under the one may end while the other is in use.

    def request_started(self, address: BackendAddress) -> None:
        self._of(address).request_started(address)

    def request_ended(self, address: BackendAddress, outcome: Outcome) -> None:
        self._of(address).request_ended(address, outcome)

    def connect_failed(self, address: BackendAddress) -> None:
        self._of(address).connect_failed(address)

    def asks_members(self) -> bool:
        return self._now().asks_members()

    def statuses(self) -> Sequence[BackendStatus]:
        return self._now().statuses()

    def _of(self, address: BackendAddress) -> BackendBalancer:
        return self._members if address in self._members else self._ask

    def _now(self) -> BackendBalancer:
        return self._members if len(self._members) else self._ask
