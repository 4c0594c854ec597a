"""The proxy as a whole: listens, looks after deadlines, and ends in order."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from typing import NamedTuple, cast

from arke_proxy.clients.certificates import Certificates
from arke_proxy.clients.http1_connection import Client
from arke_proxy.clients.tls_listener import Doorway
from arke_proxy.connections.descriptors import NONE_LEFT, missing, shortage
from arke_proxy.connections.hub import Hub, log
from arke_proxy.processes.sockets import BACKLOG

_TICK = 0.1  # seconds between two looks at the deadlines
_MOST_ADOPTED = 256  # of them in one tick; the loop has other work too


class HttpListener(NamedTuple):
    """A listening socket, and what is presented to clients there; None if they come without TLS."""

    sock: socket.socket
    certificates: Certificates | None = None
    siblings: Sequence[socket.socket] = ()  # on the same port, where other workers accept


class Server:
    """Serves on listening sockets from `start` to `stop`."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._listeners: tuple[HttpListener, ...] = ()
        self._servers: list[asyncio.Server | Doorway] = []
        self._tick: asyncio.TimerHandle | None = None
        self._adopting: set[asyncio.Task[None]] = set()

    async def start(self, *listeners: HttpListener) -> None:
        """Begin to accept; the sockets are closed by `stop`."""
        self._listeners = listeners
        for listener in listeners:
            self._servers.append(await self._listen(listener))
            for sibling in listener.siblings:
                sibling.setblocking(False)
        self._sweep()

    async def _listen(self, listener: HttpListener) -> asyncio.Server | Doorway:
        hub = self._hub
        if listener.certificates:
            doorway = Doorway(hub, listener.sock, listener.certificates.context)
            doorway.open()
            return doorway
        # It listens again, and would keep fewer waiting.
        return await hub.loop.create_server(self._client, sock=listener.sock, backlog=BACKLOG)

    def _client(self) -> asyncio.Protocol:
        return cast("asyncio.Protocol", Client(self._hub))

    def _stand_in(self, listener: HttpListener, server: asyncio.Server | Doorway) -> None:
        """Accept what a worker beside this one has left waiting: it may have died, or hang."""
        for sibling in listener.siblings:
            if isinstance(server, Doorway):
                server.accept_from(sibling, _MOST_ADOPTED)
                continue
            with contextlib.suppress(OSError):  # nobody waits there
                for _ in range(_MOST_ADOPTED):
                    sock, _ = sibling.accept()
                    task = self._hub.loop.create_task(self._adopt(sock))
                    self._adopting.add(task)
                    task.add_done_callback(self._adopting.discard)

    async def _adopt(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        with contextlib.suppress(OSError):  # who has left again
            await self._hub.loop.connect_accepted_socket(self._client, sock)

    async def stop(self, within: float, parting: float) -> None:
        """Accept no more, let what runs finish, and close everything, in so many seconds.

        A connection that idles is closed after `parting`: a request may be on its way in it. May
        be cancelled, and called again with less time.
        """
        hub = self._hub
        hub.draining = True
        for server in self._servers:
            server.close()
        for listener in self._listeners:
            for sibling in listener.siblings:
                sibling.close()
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
        for backend in hub.pool.clear():
            backend.close()
        if self._tick:
            self._tick.cancel()

    def _sweep(self) -> None:
        self._tick = self._hub.loop.call_later(_TICK, self._sweep)
        self._hub.sweep()
        if error := missing():  # for want of which the loop closes whoever comes, and tells nobody
            self._hub.complaints.warn(NONE_LEFT, shortage(error))
        for listener, server in zip(self._listeners, self._servers, strict=True):
            if not self._hub.draining:
                self._stand_in(listener, server)
            if listener.certificates:
                listener.certificates.refresh(self._hub.clock())
