"""`-choose auto`: use addresses that members publish; if none does, ask members for one."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from arke_proxy.backends.address import BackendAddress
from arke_proxy.balancing.ask_balancer import AskBalancer
from arke_proxy.balancing.balancer import BackendBalancer, BackendStatus, Outcome
from arke_proxy.balancing.members_balancer import MembersBalancer


class FallbackBalancer(BackendBalancer):
    """Uses `members` while any member publishes an address, and falls back to `ask`."""

    def __init__(self, members: MembersBalancer, ask: AskBalancer) -> None:
        self._members = members
        self._ask = ask

    def pick_now(
        self, tried: Collection[BackendAddress], preferred: BackendAddress | None = None
    ) -> BackendAddress | None:
        return self._current().pick_now(tried, preferred)

    async def pick(
        self, tried: Collection[BackendAddress], preferred: BackendAddress | None = None
    ) -> BackendAddress:
        return await self._current().pick(tried, preferred)

    # A request may start under one balancer and end while the other is in use.

    def request_started(self, address: BackendAddress) -> None:
        self._owner(address).request_started(address)

    def request_ended(self, address: BackendAddress, outcome: Outcome) -> None:
        self._owner(address).request_ended(address, outcome)

    def connect_failed(self, address: BackendAddress) -> None:
        self._owner(address).connect_failed(address)

    def asks_members(self) -> bool:
        return self._current().asks_members()

    def statuses(self) -> Sequence[BackendStatus]:
        return self._current().statuses()

    def _owner(self, address: BackendAddress) -> BackendBalancer:
        return self._members if address in self._members else self._ask

    def _current(self) -> BackendBalancer:
        return self._members if len(self._members) else self._ask
