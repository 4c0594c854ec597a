"""The proxy as a whole: listens, looks after deadlines, and ends in order."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import NamedTuple, cast

from arke_proxy.clients.doorway import Doorway
from arke_proxy.clients.http1 import Client
from arke_proxy.clients.tls import Certificates
from arke_proxy.descriptors import NONE_LEFT, missing, shortage
from arke_proxy.hub import Hub, log

_TICK = 0.1  # seconds between two looks at the deadlines
_BACKLOG = 4096  # connections that the kernel keeps until they are accepted


class Listener(NamedTuple):
    """A bound socket, and what is presented to clients there; None if they come without TLS."""

    sock: socket.socket
    certificates: Certificates | None = None


class Server:
    """Serves on bound sockets from `start` to `stop`."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._listeners: tuple[Listener, ...] = ()
        self._servers: list[asyncio.Server | Doorway] = []
        self._tick: asyncio.TimerHandle | None = None

    async def start(self, *listeners: Listener) -> None:
        """Begin to accept; the sockets are closed by `stop`."""
        self._listeners = listeners
        for sock, certificates in listeners:
            if certificates:
                self._servers.append(self._listen_with_tls(sock, certificates))
            else:
                self._servers.append(await self._listen(sock))
        self._sweep()

    async def _listen(self, sock: socket.socket) -> asyncio.Server:
        hub = self._hub
        return await hub.loop.create_server(
            lambda: cast("asyncio.Protocol", Client(hub)), sock=sock, backlog=_BACKLOG
        )

    def _listen_with_tls(self, sock: socket.socket, certificates: Certificates) -> Doorway:
        doorway = Doorway(self._hub, sock, certificates.context)
        doorway.open(_BACKLOG)
        return doorway

    async def stop(self, within: float, parting: float) -> None:
        """Accept no more, let what runs finish, and close everything, in so many seconds.

        A connection that idles is closed after `parting`: a request may be on its way in it. May
        be cancelled, and called again with less time.
        """
        hub = self._hub
        hub.draining = True
        for server in self._servers:
            server.close()
        try:
            async with asyncio.timeout(within):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(hub.deserted.wait(), parting)
                for client in list(hub.clients):
                    client.part()
                await hub.deserted.wait()
        except TimeoutError:
            log.warning("%d connections did not end within %g s", len(hub.clients), within)
            for client in list(hub.clients):
                client.cut()
            with contextlib.suppress(TimeoutError):  # until the last of them is noted
                await asyncio.wait_for(hub.deserted.wait(), parting)
        for back_end in hub.pool.clear():
            back_end.close()
        if self._tick:
            self._tick.cancel()

    def _sweep(self) -> None:
        self._tick = self._hub.loop.call_later(_TICK, self._sweep)
        self._hub.sweep()
        if error := missing():  # for want of which the loop closes whoever comes, and tells nobody
            self._hub.complaints.warn(NONE_LEFT, shortage(error))
        for listener in self._listeners:
            if listener.certificates:
                listener.certificates.refresh(self._hub.clock())
