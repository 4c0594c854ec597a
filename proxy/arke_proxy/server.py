"""The proxy as a whole: listens, looks after deadlines, and ends in order."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from typing import Any, NamedTuple

from arke_proxy.clients.http1 import Client
from arke_proxy.clients.negotiated import Negotiated
from arke_proxy.clients.tls import Certificates
from arke_proxy.hub import Hub, log

_TICK = 0.1  # seconds between two looks at the deadlines
_BACKLOG = 4096  # connections that the kernel keeps until they are accepted
_NO_IPV6 = frozenset((errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL))


def bind(host: str, port: int) -> socket.socket:
    """Take the port, without listening yet; an empty host is every address. Raises OSError."""
    if host:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return _bound(family, where)
    try:
        return _bound(socket.AF_INET6, ("::", port))
    except OSError as error:
        if error.errno not in _NO_IPV6:
            raise
    return _bound(socket.AF_INET, ("", port))


def _bound(family: int, where: tuple[Any, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if where[0] == "::":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(where)
    except BaseException:
        sock.close()
        raise
    return sock


class Listener(NamedTuple):
    """A bound socket, and what is presented to clients there; None if they come without TLS."""

    sock: socket.socket
    certificates: Certificates | None = None


class Server:
    """Serves on bound sockets from `start` to `stop`."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._listeners: tuple[Listener, ...] = ()
        self._servers: list[asyncio.Server] = []
        self._tick: asyncio.TimerHandle | None = None

    async def start(self, *listeners: Listener) -> None:
        """Begin to accept; the sockets are closed by `stop`."""
        self._listeners = listeners
        for sock, certificates in listeners:
            if certificates:
                self._servers.append(await self._listen_with_tls(sock, certificates))
            else:
                self._servers.append(await self._listen(sock))
        self._sweep()

    async def _listen(self, sock: socket.socket) -> asyncio.Server:
        hub = self._hub
        return await hub.loop.create_server(lambda: Client(hub), sock=sock, backlog=_BACKLOG)

    async def _listen_with_tls(
        self, sock: socket.socket, certificates: Certificates
    ) -> asyncio.Server:
        hub = self._hub
        return await hub.loop.create_server(
            lambda: Negotiated(hub),
            sock=sock,
            backlog=_BACKLOG,
            ssl=certificates.context,
            ssl_handshake_timeout=hub.times.head,
            ssl_shutdown_timeout=hub.times.silence,  # it has to read what was written before
        )

    async def stop(self) -> None:
        """Accept no more, let what runs finish, and close everything, within the time of grace.

        A connection that idles is closed a moment later: a request may be on its way in it.
        """
        hub = self._hub
        hub.draining = True
        for server in self._servers:
            server.close()
        try:
            async with asyncio.timeout(hub.times.grace):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(hub.deserted.wait(), hub.times.parting)
                for client in list(hub.clients):
                    client.part()
                await hub.deserted.wait()
        except TimeoutError:
            log.warning("%d connections did not end within %g s", len(hub.clients), hub.times.grace)
            for client in list(hub.clients):
                client.cut()
        for back_end in hub.pool.clear():
            back_end.close()
        if self._tick:
            self._tick.cancel()

    def _sweep(self) -> None:
        self._tick = self._hub.loop.call_later(_TICK, self._sweep)
        self._hub.sweep()
        for listener in self._listeners:
            if listener.certificates:
                listener.certificates.refresh(self._hub.loop.time())
