"""A worker's server: accept clients, enforce deadlines, and drain on shutdown."""

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
from arke_proxy.log import log, warn_limited
from arke_proxy.processes.socket_binding import BACKLOG

_TICK = 0.1  # seconds between two checks of the deadlines
_MAX_SIBLING_ACCEPTS = 256  # per tick and sibling; the loop has other work too


class HttpListener(NamedTuple):
    """A listening socket, with certificates if its clients use TLS."""

    sock: socket.socket
    certificates: Certificates | None = None
    siblings: Sequence[socket.socket] = ()  # on the same port, where the other workers accept


class ProxyServer:
    """Serves clients on listening sockets, from `start` to `stop`."""

    def __init__(self, context: ProxyContext) -> None:
        self._context = context
        self._listeners: tuple[HttpListener, ...] = ()
        self._servers: list[asyncio.Server | TlsListener] = []
        self._timer: asyncio.TimerHandle | None = None
        self._accepting: set[asyncio.Task[None]] = set()  # connections from siblings

    async def start(self, *listeners: HttpListener) -> None:
        """Start to accept; `stop` closes the sockets."""
        self._listeners = listeners
        for listener in listeners:
            self._servers.append(await self._listen(listener))
            for sibling in listener.siblings:
                sibling.setblocking(False)
        self._tick()

    async def _listen(self, listener: HttpListener) -> asyncio.Server | TlsListener:
        context = self._context
        if listener.certificates:
            server = TlsListener(context, listener.sock, listener.certificates.context)
            server.open()
            return server
        # The loop calls listen() again, with a shorter backlog unless it is given here.
        return await context.loop.create_server(self._client, sock=listener.sock, backlog=BACKLOG)

    def _client(self) -> asyncio.Protocol:
        return cast("asyncio.Protocol", Http1Connection(self._context))

    def _accept_from_siblings(
        self, listener: HttpListener, server: asyncio.Server | TlsListener
    ) -> None:
        """Accept the connections that other workers have not: a worker may have died or hang."""
        for sibling in listener.siblings:
            if isinstance(server, TlsListener):
                server.accept_from(sibling, _MAX_SIBLING_ACCEPTS)
                continue
            with contextlib.suppress(OSError):  # no connection is waiting
                for _ in range(_MAX_SIBLING_ACCEPTS):
                    sock, _ = sibling.accept()
                    task = self._context.loop.create_task(self._connect(sock))
                    self._accepting.add(task)
                    task.add_done_callback(self._accepting.discard)

    async def _connect(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        with contextlib.suppress(OSError):  # the client has disconnected
            await self._context.loop.connect_accepted_socket(self._client, sock)

    async def stop(self, timeout: float, idle_timeout: float) -> None:  # noqa: ASYNC109
        """Stop accepting, let running requests finish, then close everything after `timeout`.

        Idle connections are closed only after `idle_timeout`, because a request may be on its way.
        May be cancelled, and called again with a shorter time.
        """
        context = self._context
        context.clients.draining = True
        for server in self._servers:
            server.close()
        for listener in self._listeners:
            for sibling in listener.siblings:
                sibling.close()
        try:
            async with asyncio.timeout(timeout):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(context.clients.no_clients.wait(), idle_timeout)
                for client in list(context.clients):
                    client.shut_down()
                await context.clients.no_clients.wait()
        except TimeoutError:
            log.warning(
                "closing the connections that are still open",
                connections=len(context.clients),
                seconds=timeout,
            )
            for client in list(context.clients):
                client.abort()
            with contextlib.suppress(TimeoutError):  # wait until the last request is recorded
                await asyncio.wait_for(context.clients.no_clients.wait(), idle_timeout)
        context.backends.close()
        if self._timer:
            self._timer.cancel()

    def _tick(self) -> None:
        self._timer = self._context.loop.call_later(_TICK, self._tick)
        self._context.sweep()
        # Without descriptors the loop drops new connections silently.
        if error := check_descriptors():
            warn_limited(NO_DESCRIPTORS, "no file descriptor left", reason=describe_shortage(error))
        for listener, server in zip(self._listeners, self._servers, strict=True):
            if not self._context.clients.draining:
                self._accept_from_siblings(listener, server)
            if listener.certificates:
                listener.certificates.refresh(self._context.clock())
