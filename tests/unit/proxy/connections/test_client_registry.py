from __future__ import annotations

import pytest

from arke_proxy.connections.client_registry import ClientRegistry
from arke_proxy.connections.client_state import ClientState
from arke_proxy.connections.timeouts import TimeLimits, Timeouts
from arke_proxy.errors import TooManyConnections


class Connection:
    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.timer = Timeouts(TimeLimits()).timer(ClientState.IDLE)

    def timed_out(self) -> None: ...

    def shut_down(self) -> None: ...

    def abort(self) -> None: ...


async def test_total_limit_rejects_clients() -> None:
    registry = ClientRegistry(2)
    first = Connection("10.0.0.1")
    registry.add(first)
    registry.check_room("10.0.0.1")
    registry.add(Connection("10.0.0.2"))
    with pytest.raises(TooManyConnections, match="has 2 client connections"):
        registry.check_room("10.0.0.3")
    registry.remove(first)
    registry.check_room("10.0.0.3")


async def test_limit_per_address_rejects_clients() -> None:
    registry = ClientRegistry(10, max_per_address=1)
    first = Connection("10.0.0.1")
    registry.add(first)
    registry.check_room("10.0.0.2")
    with pytest.raises(TooManyConnections, match="per address"):
        registry.check_room("10.0.0.1")
    registry.remove(first)
    registry.remove(first)
    registry.check_room("10.0.0.1")


async def test_no_clients_event_is_not_set_between_handshake_and_connection() -> None:
    registry = ClientRegistry(10)
    assert registry.no_clients.is_set()
    handshake, connection = Connection("10.0.0.1"), Connection("10.0.0.1")
    registry.add(handshake)
    registry.hand_over(handshake)
    assert not registry.no_clients.is_set()
    registry.add(connection)
    assert list(registry) == [connection]
    registry.remove(connection)
    assert registry.no_clients.is_set()
    assert len(registry) == 0
