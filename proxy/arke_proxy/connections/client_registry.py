"""The open client connections, and the limits on their number."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

from arke_proxy.connections.client_state import ClientConnection
from arke_proxy.errors import TooManyConnections


class ClientRegistry:
    """Knows every client connection; limits their number in total and for each IP address."""

    __slots__ = (
        "_connections",
        "_max_clients",
        "_max_per_address",
        "_per_address",
        "draining",
        "no_clients",
    )

    def __init__(self, max_clients: int, max_per_address: int | None = None) -> None:
        self._max_clients = max_clients
        self._max_per_address = max_per_address
        self._connections: set[ClientConnection] = set()
        self._per_address: Counter[str] = Counter()
        self.draining = False  # the worker stops or is retired: connections close after a response
        self.no_clients = asyncio.Event()
        self.no_clients.set()

    def __len__(self) -> int:
        return len(self._connections)

    def __iter__(self) -> Iterator[ClientConnection]:
        return iter(self._connections)

    def check_room(self, peer: str) -> None:
        """Raise TooManyConnections if one more connection from this address is over a limit."""
        limit = self._max_clients
        if len(self._connections) >= limit:
            raise TooManyConnections(
                f"The proxy has {limit} client connections, which is its limit."
            )
        per_address = self._max_per_address
        if per_address is not None and self._per_address[peer] >= per_address:
            raise TooManyConnections(
                f"The proxy has {per_address} connections from this address, "
                "which is its limit per address."
            )

    def add(self, client: ClientConnection) -> None:
        self._connections.add(client)
        self._per_address[client.peer] += 1
        self.no_clients.clear()

    def hand_over(self, client: ClientConnection) -> None:
        """Forget a connection that is about to be added again, as another protocol's object."""
        self._connections.discard(client)
        self._per_address[client.peer] -= 1
        if not self._per_address[client.peer]:
            del self._per_address[client.peer]

    def remove(self, client: ClientConnection) -> None:
        """Forget a closed connection; does nothing for one that is not registered."""
        if client in self._connections:
            self.hand_over(client)
        if not self._connections:
            self.no_clients.set()
