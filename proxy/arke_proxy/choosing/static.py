"""Back ends known beforehand, for tests."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from arke_proxy.choosing.address import Address
from arke_proxy.choosing.chooser import Outcome, Standing
from arke_proxy.errors import AllTried, NoBackEnd


class Static:
    """Back ends known beforehand, in turn."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = addresses
        self._next = 0

    def ready(self, tried: Collection[Address], preferred: Address | None = None) -> Address:
        if preferred and preferred in self._addresses and preferred not in tried:
            return preferred
        for _ in self._addresses:
            address = self._addresses[self._next % len(self._addresses)]
            self._next += 1
            if address not in tried:
                return address
        if tried:
            raise AllTried("There is no other back end.")
        raise NoBackEnd("There is no back end.")

    async def choose(self, tried: Collection[Address], preferred: Address | None = None) -> Address:
        return self.ready(tried, preferred)

    def began(self, address: Address) -> None:
        """Nothing is counted."""

    def ended(self, address: Address, outcome: Outcome) -> None:
        """Nothing is counted."""

    def unreachable(self, address: Address) -> None:
        """Its turn comes again all the same: nobody says when it is back."""

    def standings(self) -> list[Standing]:
        return [Standing(address, 1.0, 0, out=False, used=True) for address in self._addresses]
