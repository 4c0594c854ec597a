"""Idle connections to backends, kept for the next request."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from arke_proxy.backends.address import BackendAddress

C = TypeVar("C", bound=Hashable)


class Pool(Generic[C]):
    """Idle connections by address, the freshest first. Does no I/O: its caller closes.

    `limit` is per address; `seconds` is how long a connection may idle.
    """

    __slots__ = ("_idle", "_limit", "_seconds")

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit = limit
        self._seconds = seconds
        self._idle: dict[BackendAddress, dict[C, float]] = {}  # each in the order of becoming idle

    def __len__(self) -> int:
        return sum(map(len, self._idle.values()))

    def take(self, address: BackendAddress) -> C | None:
        """Hand out the connection that idled least: the one most likely alive."""
        idle = self._idle.get(address)
        return idle.popitem()[0] if idle else None

    def give(self, address: BackendAddress, connection: C, now: float) -> bool:
        """Keep the connection; False if there are enough."""
        idle = self._idle.get(address)
        if idle is None:
            idle = self._idle[address] = {}
        elif len(idle) >= self._limit:
            return False
        idle[connection] = now
        return True

    def forget(self, address: BackendAddress, connection: C) -> None:
        """Drop a connection that ended while it idled, if it is here."""
        if idle := self._idle.get(address):
            idle.pop(connection, None)

    def spare(self) -> C | None:
        """Give up what has idled longest, if anything has; no tunnels, which take no descriptor."""
        some = [idle for address, idle in self._idle.items() if idle and not address.via]
        if not some:
            return None
        idle = min(some, key=lambda idle: next(iter(idle.values())))
        connection = next(iter(idle))
        del idle[connection]
        return connection

    def purge(self, address: BackendAddress) -> list[C]:
        """Give up every connection to a host that turned out dead, or is about to end."""
        return list(self._idle.pop(address, ()))

    def expired(self, now: float) -> list[C]:
        """Give up what has idled too long, and addresses that nothing is left of."""
        late: list[C] = []
        for address, idle in list(self._idle.items()):
            old = []
            for connection, since in idle.items():
                if now - since < self._seconds:
                    break
                old.append(connection)
            for connection in old:
                del idle[connection]
            if not idle:
                del self._idle[address]
            late += old
        return late

    def clear(self) -> list[C]:
        """Give up everything."""
        everything = [connection for idle in self._idle.values() for connection in idle]
        self._idle.clear()
        return everything
