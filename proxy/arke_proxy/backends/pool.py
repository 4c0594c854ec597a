"""Connection pool: idle connections to backends, kept for the next request."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from arke_proxy.backends.address import BackendAddress

C = TypeVar("C", bound=Hashable)


class Pool(Generic[C]):
    """Idle connections by address, the most recently used first. The caller closes connections.

    `limit` is per address; `idle_timeout` is in seconds.
    """

    __slots__ = ("_idle", "_idle_timeout", "_limit")

    def __init__(self, limit: int, idle_timeout: float) -> None:
        self._limit = limit
        self._idle_timeout = idle_timeout
        self._idle: dict[BackendAddress, dict[C, float]] = {}  # each ordered by the start of idling

    def __len__(self) -> int:
        return sum(map(len, self._idle.values()))

    def take(self, address: BackendAddress) -> C | None:
        """Remove and return the most recently used connection, which is most likely open."""
        idle = self._idle.get(address)
        return idle.popitem()[0] if idle else None

    def give(self, address: BackendAddress, connection: C, now: float) -> bool:
        """Keep the connection; return False at the limit."""
        idle = self._idle.get(address)
        if idle is None:
            idle = self._idle[address] = {}
        elif len(idle) >= self._limit:
            return False
        idle[connection] = now
        return True

    def forget(self, address: BackendAddress, connection: C) -> None:
        """Remove a connection that was closed while idle, if it is in the pool."""
        if idle := self._idle.get(address):
            idle.pop(connection, None)

    def evict(self) -> C | None:
        """Remove and return the connection idle longest; no tunnels, which use no descriptor."""
        groups = [idle for address, idle in self._idle.items() if idle and not address.via]
        if not groups:
            return None
        idle = min(groups, key=lambda idle: next(iter(idle.values())))
        connection = next(iter(idle))
        del idle[connection]
        return connection

    def purge(self, address: BackendAddress) -> list[C]:
        """Remove and return all connections to a backend that is dead or leaves."""
        return list(self._idle.pop(address, ()))

    def expired(self, now: float) -> list[C]:
        """Remove and return connections past the idle timeout; drop addresses without any."""
        expired: list[C] = []
        for address, idle in list(self._idle.items()):
            old = []
            for connection, since in idle.items():
                if now - since < self._idle_timeout:
                    break
                old.append(connection)
            for connection in old:
                del idle[connection]
            if not idle:
                del self._idle[address]
            expired += old
        return expired

    def clear(self) -> list[C]:
        """Remove and return all connections."""
        connections = [connection for idle in self._idle.values() for connection in idle]
        self._idle.clear()
        return connections
