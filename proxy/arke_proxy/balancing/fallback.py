"""Choosing from what members publish, or asking them where none does."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from arke_proxy.backends.address import Address
from arke_proxy.balancing.ask import Ask
from arke_proxy.balancing.balancer import Chooser, Outcome, Standing
from arke_proxy.balancing.members import Members


class Either(Chooser):
    """Uses `members` while any of them publishes an address, and `ask` otherwise."""

    def __init__(self, members: Members, ask: Ask) -> None:
        self._members = members
        self._ask = ask

    def ready(self, tried: Collection[Address], preferred: Address | None = None) -> Address | None:
        return self._now().ready(tried, preferred)

    async def choose(self, tried: Collection[Address], preferred: Address | None = None) -> Address:
        return await self._now().choose(tried, preferred)

    # What was begun under the one may end while the other is in use.

    def began(self, address: Address) -> None:
        self._of(address).began(address)

    def ended(self, address: Address, outcome: Outcome) -> None:
        self._of(address).ended(address, outcome)

    def unreachable(self, address: Address) -> None:
        self._of(address).unreachable(address)

    def asks(self) -> bool:
        return self._now().asks()

    def standings(self) -> Sequence[Standing]:
        return self._now().standings()

    def _of(self, address: Address) -> Chooser:
        return self._members if address in self._members else self._ask

    def _now(self) -> Chooser:
        return self._members if len(self._members) else self._ask
