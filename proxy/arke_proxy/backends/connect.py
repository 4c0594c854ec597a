"""Opens connections to backends, of which there are only as many as descriptors are for them."""

from __future__ import annotations

import asyncio

from arke_proxy.backends.address import BackendAddress
from arke_proxy.backends.connection import BackendConnection
from arke_proxy.connections.descriptors import MEND, NONE_LEFT, shortage
from arke_proxy.connections.hub import Hub
from arke_proxy.errors import Exhausted


async def connect(address: BackendAddress, hub: Hub) -> BackendConnection:
    """Open a connection to which nothing has happened yet.

    Where there are as many as may be, one that idles makes room. Raises Exhausted if none does;
    OSError; TimeoutError, which is one, if the host stays silent.
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
        sentence = "The proxy has no descriptor left for a connection to a backend."
        raise Exhausted(sentence) from None
    if backend.is_dead():
        backend.abort()
        raise ConnectionAbortedError("it ended the connection, or spoke, before it was asked")
    return backend


async def _make_room(hub: Hub) -> None:
    dialer = hub.dialer
    while not dialer.room:
        idle = hub.pool.spare()
        if idle is None:
            sentence = f"The proxy has {dialer.most} connections to backends, and no more"
            hub.complaints.warn(dialer, f"{sentence}: {MEND}")
            raise Exhausted(f"{sentence}.")
        idle.abort()
        await asyncio.sleep(0)  # in the next turn of the loop it is closed
