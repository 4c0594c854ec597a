"""Provides backend connections: idle ones from the pool, new ones within the descriptor limit."""

from __future__ import annotations

import asyncio

from arke_proxy.backends.address import BackendAddress
from arke_proxy.backends.connection import BackendConnection, BackendEnvironment
from arke_proxy.backends.dialer import Dialer
from arke_proxy.backends.pool import Pool
from arke_proxy.balancing.retry import IDEMPOTENT
from arke_proxy.connections.descriptors import DESCRIPTOR_FIX, NO_DESCRIPTORS, describe_shortage
from arke_proxy.connections.write_batch import WriteBatch
from arke_proxy.errors import TooManyConnections
from arke_proxy.log import warn_limited

_IDLE_PER_BACKEND = 128


class BackendConnector:
    """Opens connections to backends, and keeps idle ones for the next request.

    `idle_seconds`: how long a connection may be idle.
    """

    def __init__(
        self,
        dialer: Dialer,
        loop: asyncio.AbstractEventLoop,
        write_batch: WriteBatch,
        *,
        idle_seconds: float,
    ) -> None:
        self._dialer = dialer
        self._loop = loop
        self._pool: Pool[BackendConnection] = Pool(_IDLE_PER_BACKEND, idle_seconds)
        self._environment = BackendEnvironment(
            pool=self._pool, dialer=dialer, write_batch=write_batch
        )

    def take_idle(self, address: BackendAddress, method: bytes) -> BackendConnection | None:
        """Take an idle connection for a request with this method; None if there is none."""
        while connection := self._pool.take(address):
            # The backend may just have closed the connection. For a request that cannot be
            # retried, check with one system call.
            if method in IDEMPOTENT or not connection.is_dead():
                return connection
            connection.close()
        return None

    async def connect(self, address: BackendAddress) -> BackendConnection:
        """Open a new connection, on which nothing has been sent or received.

        At the connection limit an idle connection is closed first. Raises TooManyConnections if
        none is idle or no descriptor is left, and OSError (TimeoutError included).
        """
        if not address.via:
            await self._make_room()
        try:
            connection = await self._dialer.connect(
                address, lambda sock: BackendConnection(address, sock, self._environment)
            )
        except OSError as error:
            if error.errno not in NO_DESCRIPTORS:
                raise
            warn_limited(NO_DESCRIPTORS, "no file descriptor left", reason=describe_shortage(error))
            sentence = "The proxy has no file descriptor left for a connection to a backend."
            raise TooManyConnections(sentence) from None
        if connection.is_dead():
            connection.abort()
            raise ConnectionAbortedError("it closed the connection, or sent data, before a request")
        return connection

    def abort_idle(self, address: BackendAddress) -> None:
        """Abort the idle connections to a backend whose host is dead."""
        for connection in self._pool.purge(address):
            connection.abort()

    def close_idle(self, address: BackendAddress) -> None:
        """Close idle connections to a departed backend, also those that now become idle."""
        self._loop.call_soon(self._close_idle_now, address)

    def sweep(self, now: float) -> None:
        """Close connections that have been idle for too long."""
        for connection in self._pool.expired(now):
            connection.close()

    def close(self) -> None:
        """Close all idle connections."""
        for connection in self._pool.clear():
            connection.close()

    def _close_idle_now(self, address: BackendAddress) -> None:
        for connection in self._pool.purge(address):
            connection.close()

    async def _make_room(self) -> None:
        dialer = self._dialer
        while not dialer.has_room:
            idle = self._pool.evict()
            if idle is None:
                sentence = (
                    f"The proxy has {dialer.limit} connections to backends, which is its limit"
                )
                warn_limited(
                    dialer,
                    "too many connections to backends",
                    reason=f"{sentence}: {DESCRIPTOR_FIX}",
                )
                raise TooManyConnections(f"{sentence}.")
            idle.abort()
            await asyncio.sleep(0)  # the event loop closes it in its next iteration
