"""Tunnels to a service's HTTP server: each is one connection to the address it registered.

Nothing that comes in a tunnel, or with its opening, can name another address.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable

from arke.errors import TunnelClosed
from arke.runtime.http_server_address import HttpServer
from arke.runtime.relay_connection import RelayLink
from arke.tunnel import Tunnel
from arke.wire.limits import HTTP_SEGMENT
from arke.wire.messages import Op

log = logging.getLogger("arke")

_FAULT = Op.FAULT.value
_REFUSED = Op.REFUSED.value


class HttpTunnels:
    """Those of one service; `most` at once."""

    def __init__(self, server: HttpServer | None, most: int, node: Callable[[], str]) -> None:
        self._server = server
        self._most = most
        self._node = node
        self._open: dict[asyncio.Task[None], Tunnel | None] = {}

    def offer(
        self, link: RelayLink, call: int, timeout: float, accept: Callable[[], Tunnel]
    ) -> None:
        """Connect within `timeout` seconds, and only then take the tunnel that is offered.

        So whoever opens it learns at once, and before it has sent anything, that this server
        cannot be reached.
        """
        if self._server is None or len(self._open) >= self._most:
            link.send((_REFUSED, call, "full" if self._server else "it has no HTTP server"))
            return
        where = self._server.host or self._node(), self._server.port
        task = asyncio.create_task(self._serve(where, link, call, timeout, accept))
        self._open[task] = None
        task.add_done_callback(self._open.pop)

    async def idle(self) -> None:
        """Wait until none is open."""
        if self._open:
            await asyncio.wait(self._open)

    async def stop(self) -> None:
        """Break off those that are open."""
        for task, tunnel in self._open.items():
            if tunnel:
                tunnel.abort("the service stopped")
            task.cancel()
        await self.idle()

    async def _serve(
        self,
        where: tuple[str, int],
        link: RelayLink,
        call: int,
        timeout: float,  # noqa: ASYNC109 — of the connecting alone
        accept: Callable[[], Tunnel],
    ) -> None:
        try:
            async with asyncio.timeout(timeout):
                reader, writer = await asyncio.open_connection(*where, limit=HTTP_SEGMENT)
        except OSError as error:
            text = f"its HTTP server at {where[0]} port {where[1]}: {error.strerror or 'silent'}"
            link.send((_FAULT, call, type(error).__name__, text))
            return
        except asyncio.CancelledError:
            link.send((_REFUSED, call, "the service stopped"))
            raise
        if link.closed.done():
            writer.transport.abort()  # the tunnel ended with the link, before it was there
            return
        task = asyncio.current_task()
        assert task
        self._open[task] = tunnel = accept()
        await splice(tunnel, reader, writer)


async def splice(tunnel: Tunnel, reader: StreamReader, writer: StreamWriter) -> None:
    """Carry octets both ways until both directions have ended, or one end broke.

    What ends in order at one side ends in order at the other, and what breaks is broken off:
    half an answer never looks like a whole one.
    """
    sending = asyncio.create_task(_send(tunnel, reader))
    try:
        async for data in tunnel:
            writer.write(data)
            await writer.drain()
        if tunnel.heard:
            writer.write_eof()
            await sending
        await tunnel.close()
        writer.close()
    except TunnelClosed as error:
        log.debug("a connection to the HTTP server ended: %s", error)
    except OSError as error:
        tunnel.abort(_text(error), type(error).__name__)
    finally:
        sending.cancel()
        if not writer.is_closing():
            tunnel.abort("the connection to the HTTP server was given up")
            writer.transport.abort()


async def _send(tunnel: Tunnel, reader: StreamReader) -> None:
    try:
        while data := await reader.read(HTTP_SEGMENT):
            await tunnel.send(data)
        tunnel.close_send()
    except TunnelClosed:
        pass  # whoever reads the tunnel sees it too
    except OSError as error:
        tunnel.abort(_text(error), type(error).__name__)


def _text(error: OSError) -> str:
    return f"its HTTP server broke the connection: {error.strerror or error}"
