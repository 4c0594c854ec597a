"""Opens connections to backends: directly, or through the mesh where there is no way."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final, TypeVar, cast

import arke
from arke_proxy.backends.address import BackendAddress
from arke_proxy.backends.mesh_tunnel import connect_through

UNACKNOWLEDGED_MS: Final = 2000  # what a living host's kernel acknowledges in a round trip

P = TypeVar("P")


class Dialer:
    """Connects, directly or through `mesh`, within `seconds`.

    At most `most` connections are to be open or on their way, tunnels aside, which take no
    descriptors: whoever calls `connect` sees to it that there is `room`.
    """

    __slots__ = ("_loop", "_mesh", "_open", "_seconds", "most")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, mesh: arke.Mesh | None, seconds: float, most: int
    ) -> None:
        self._loop = loop
        self._mesh = mesh
        self._seconds = seconds
        self.most = most
        self._open: set[socket.socket] = set()

    @property
    def room(self) -> bool:
        """Whether there may be one more connection."""
        return len(self._open) < self.most

    def closed(self, sock: socket.socket) -> None:
        """Learn that a connection has ended."""
        self._open.discard(sock)

    async def connect(
        self, address: BackendAddress, make: Callable[[socket.socket | None], P]
    ) -> P:
        """Open a connection for the protocol of the loop's that `make` makes, and hands the socket.

        Whoever has the socket says when it is `closed`. Raises OSError; TimeoutError, which is one,
        if the host or the member stays silent.
        """
        if address.via:
            assert self._mesh, "only the mesh names members"
            made = make(None)
            protocol = cast("asyncio.Protocol", made)
            await connect_through(self._mesh, address.via, protocol, self._loop, self._seconds)
            return made
        sock = await self._directly(address)
        try:
            made = make(sock)
            await self._loop.create_connection(lambda: cast("asyncio.Protocol", made), sock=sock)
        except BaseException:
            sock.close()
            self.closed(sock)
            raise
        return made

    async def _directly(self, address: BackendAddress) -> socket.socket:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        self._open.add(sock)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # The kernel notices a dead host in two or three seconds, at work and idle.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)
            async with asyncio.timeout(self._seconds):
                await self._loop.sock_connect(sock, (address.host, address.port))
        except BaseException:
            sock.close()
            self.closed(sock)
            raise
        return sock
