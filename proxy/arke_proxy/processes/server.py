"""The proxy as a whole: listens, looks after deadlines, and ends in order."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from typing import NamedTuple, cast

from arke_proxy.clients.certificates import Certificates
from arke_proxy.clients.http1_connection import Http1Connection
from arke_proxy.clients.tls_listener import TlsListener
from arke_proxy.connections.descriptors import NO_DESCRIPTORS, check_descriptors, describe_shortage
from arke_proxy.context import ProxyContext
from arke_proxy.log import log
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

    def __init__(self, context: ProxyContext) -> None:
        self._context = context
        self._listeners: tuple[HttpListener, ...] = ()
        self._servers: list[asyncio.Server | TlsListener] = []
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

    async def _listen(self, listener: HttpListener) -> asyncio.Server | TlsListener:
        context = self._context
        if listener.certificates:
            doorway = TlsListener(context, listener.sock, listener.certificates.context)
            doorway.open()
            return doorway
        # It listens again, and would keep fewer waiting.
        return await context.loop.create_server(self._client, sock=listener.sock, backlog=BACKLOG)

    def _client(self) -> asyncio.Protocol:
        return cast("asyncio.Protocol", Http1Connection(self._context))

    def _stand_in(self, listener: HttpListener, server: asyncio.Server | TlsListener) -> None:
        """Accept what a worker beside this one has left waiting: it may have died, or hang."""
        for sibling in listener.siblings:
            if isinstance(server, TlsListener):
                server.accept_from(sibling, _MOST_ADOPTED)
                continue
            with contextlib.suppress(OSError):  # nobody waits there
                for _ in range(_MOST_ADOPTED):
                    sock, _ = sibling.accept()
                    task = self._context.loop.create_task(self._adopt(sock))
                    self._adopting.add(task)
                    task.add_done_callback(self._adopting.discard)

    async def _adopt(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        with contextlib.suppress(OSError):  # who has left again
            await self._context.loop.connect_accepted_socket(self._client, sock)

    async def stop(self, within: float, parting: float) -> None:
        """Accept no more, let what runs finish, and close everything, in so many seconds.

        A connection that idles is closed after `parting`: a request may be on its way in it. May
        be cancelled, and called again with less time.
        """
        context = self._context
        context.clients.draining = True
        for server in self._servers:
            server.close()
        for listener in self._listeners:
            for sibling in listener.siblings:
                sibling.close()
        try:
            async with asyncio.timeout(within):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(context.clients.no_clients.wait(), parting)
                for client in list(context.clients):
                    client.shut_down()
                await context.clients.no_clients.wait()
        except TimeoutError:
            log.warning("%d connections did not end within %g s", len(context.clients), within)
            for client in list(context.clients):
                client.abort()
            with contextlib.suppress(TimeoutError):  # until the last of them is noted
                await asyncio.wait_for(context.clients.no_clients.wait(), parting)
        context.backends.close()
        if self._tick:
            self._tick.cancel()

    def _sweep(self) -> None:
        self._tick = self._context.loop.call_later(_TICK, self._sweep)
        self._context.sweep()
        # Without a free descriptor, the event loop closes new connections silently.
        if error := check_descriptors():
            self._context.warnings.warn(NO_DESCRIPTORS, describe_shortage(error))
        for listener, server in zip(self._listeners, self._servers, strict=True):
            if not self._context.clients.draining:
                self._stand_in(listener, server)
            if listener.certificates:
                listener.certificates.refresh(self._context.clock())
