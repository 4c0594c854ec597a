"""Open a connection to a backend, within the limit on file descriptors."""

from __future__ import annotations

import asyncio

from arke_proxy.backends.address import BackendAddress
from arke_proxy.backends.connection import BackendConnection
from arke_proxy.connections.descriptors import MEND, NONE_LEFT, shortage
from arke_proxy.connections.hub import Hub
from arke_proxy.errors import Exhausted


async def connect(address: BackendAddress, hub: Hub) -> BackendConnection:
    """Return a new connection, on which nothing has been received.

    At the limit it closes the connection that has been idle longest. Raises Exhausted if there is
    none; OSError if connecting fails, TimeoutError included.
    """
    if not address.via:
        await _make_room(hub)
    try:
        backend = await hub.dialer.connect(
            address, lambda sock: BackendConnection(address, sock, hub)
        )
    except OSError as error:
        if error.errno not in NONE_LEFT:
            raise
        hub.complaints.warn(NONE_LEFT, shortage(error))
        sentence = "The proxy has no file descriptor left for a connection to a backend."
        raise Exhausted(sentence) from None
    if backend.is_dead():
        backend.abort()
        raise ConnectionAbortedError(
            "the backend closed the connection, or sent data, before a request"
        )
    return backend


async def _make_room(hub: Hub) -> None:
    dialer = hub.dialer
    while not dialer.has_room:
        idle = hub.pool.evict()
        if idle is None:
            sentence = f"The limit of {dialer.limit} connections to backends is reached"
            hub.complaints.warn(dialer, f"{sentence}: {MEND}")
            raise Exhausted(f"{sentence}.")
        idle.abort()
        await asyncio.sleep(0)  # the loop closes its socket in the next iteration
