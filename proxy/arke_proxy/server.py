"""The proxy as a whole: listens, looks after deadlines, and ends in order."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from arke_proxy.clients.http1 import Client
from arke_proxy.hub import Hub, log

_TICK = 0.1  # seconds between two looks at the deadlines
_BACKLOG = 4096  # connections that the kernel keeps until they are accepted


class Server:
    """Serves on a bound socket from `start` to `stop`."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._server: asyncio.Server | None = None
        self._tick: asyncio.TimerHandle | None = None

    async def start(self, sock: socket.socket) -> None:
        """Begin to accept; the socket is closed by `stop`."""
        hub = self._hub
        self._server = await hub.loop.create_server(
            lambda: Client(hub), sock=sock, backlog=_BACKLOG
        )
        self._sweep()

    async def stop(self, within: float, parting: float) -> None:
        """Accept no more, let what runs finish, and close everything, in so many seconds.

        A connection that idles is closed after `parting`: a request may be on its way in it. May
        be cancelled, and called again with less time.
        """
        assert self._server
        hub = self._hub
        hub.draining = True
        self._server.close()
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
        for back_end in hub.pool.clear():
            back_end.close()
        if self._tick:
            self._tick.cancel()

    def _sweep(self) -> None:
        self._tick = self._hub.loop.call_later(_TICK, self._sweep)
        self._hub.sweep()
