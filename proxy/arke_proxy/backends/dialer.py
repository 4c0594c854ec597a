"""Open sockets to backends directly, or tunnels to them through the mesh."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final, TypeVar, cast

import arke
from arke_proxy.backends.address import BackendAddress
from arke_proxy.backends.mesh_tunnel import connect_through

USER_TIMEOUT_MS: Final = 2000  # a live host acknowledges data within a round trip

P = TypeVar("P")


class Dialer:
    """Connects, directly or through `mesh`, within `timeout` seconds.

    At most `limit` direct connections may be open or connecting; the caller checks `has_room`.
    Tunnels need no descriptors and are not limited.
    """

    __slots__ = ("_loop", "_mesh", "_open", "_timeout", "limit")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, mesh: arke.Mesh | None, timeout: float, limit: int
    ) -> None:
        self._loop = loop
        self._mesh = mesh
        self._timeout = timeout
        self.limit = limit
        self._open: set[socket.socket] = set()

    @property
    def has_room(self) -> bool:
        """Whether one more connection may be opened."""
        return len(self._open) < self.limit

    def closed(self, sock: socket.socket) -> None:
        """Stop counting the connection towards `limit`."""
        self._open.discard(sock)

    async def connect(
        self, address: BackendAddress, make: Callable[[socket.socket | None], P]
    ) -> P:
        """Connect the asyncio protocol that `make` returns; it gets the socket, None for a tunnel.

        The owner of the socket calls `closed` when it is closed. Raises OSError, TimeoutError
        included.
        """
        if address.via:
            assert self._mesh, "only members of a mesh have tunnels"
            made = make(None)
            protocol = cast("asyncio.Protocol", made)
            await connect_through(self._mesh, address.via, protocol, self._loop, self._timeout)
            return made
        sock = await self._connect_directly(address)
        try:
            made = make(sock)
            await self._loop.create_connection(lambda: cast("asyncio.Protocol", made), sock=sock)
        except BaseException:
            sock.close()
            self.closed(sock)
            raise
        return made

    async def _connect_directly(self, address: BackendAddress) -> socket.socket:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        self._open.add(sock)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # The kernel detects a dead host within two or three seconds, idle or not.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)
            async with asyncio.timeout(self._timeout):
                await self._loop.sock_connect(sock, (address.host, address.port))
        except BaseException:
            sock.close()
            self.closed(sock)
            raise
        return sock
