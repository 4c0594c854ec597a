"""Tunnels to a service's HTTP server: each is one connection to the address it registered.

Neither a tunnel's data nor its opening can choose another address.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable

from arke.errors import TunnelClosed
from arke.runtime.http_server_address import HttpServerAddress
from arke.runtime.relay_connection import RelayConnection
from arke.tunnel import Tunnel
from arke.wire.limits import HTTP_SEGMENT
from arke.wire.messages import Op

log = logging.getLogger("arke")

_FAULT = Op.FAULT.value
_REFUSED = Op.REFUSED.value


class HttpTunnels:
    """The HTTP tunnels of one service, at most `limit` at once.

    `node_address` returns the current address of the node, for a server without a host.
    """

    def __init__(
        self, server: HttpServerAddress | None, limit: int, node_address: Callable[[], str]
    ) -> None:
        self._server = server
        self._limit = limit
        self._node_address = node_address
        self._running: dict[asyncio.Task[None], Tunnel | None] = {}

    def on_offer(
        self,
        connection: RelayConnection,
        request_id: int,
        timeout: float,
        accept: Callable[[], Tunnel],
    ) -> None:
        """Connect to the server within `timeout` seconds; accept the tunnel only then.

        So the caller learns that the server is unreachable before it sends anything.
        """
        if self._server is None or len(self._running) >= self._limit:
            reason = "full" if self._server else "the service has no HTTP server"
            connection.send((_REFUSED, request_id, reason))
            return
        host, port = self._server.host or self._node_address(), self._server.port
        task = asyncio.create_task(self._run((host, port), connection, request_id, timeout, accept))
        self._running[task] = None
        task.add_done_callback(self._running.pop)

    @property
    def open(self) -> int:
        return len(self._running)

    async def wait_idle(self) -> None:
        """Wait until every HTTP tunnel is closed."""
        if self._running:
            await asyncio.wait(self._running)

    async def stop(self) -> None:
        """Abort every HTTP tunnel."""
        for task, tunnel in self._running.items():
            if tunnel:
                tunnel.abort("the service stopped")
            task.cancel()
        await self.wait_idle()

    async def _run(
        self,
        address: tuple[str, int],
        connection: RelayConnection,
        request_id: int,
        timeout: float,  # noqa: ASYNC109 — for the connecting alone
        accept: Callable[[], Tunnel],
    ) -> None:
        """Connect, accept the tunnel and forward its bytes until both directions are closed."""
        try:
            async with asyncio.timeout(timeout):
                reader, writer = await asyncio.open_connection(*address, limit=HTTP_SEGMENT)
        except OSError as error:
            host, port = address
            reason = error.strerror or "connecting timed out"
            text = f"cannot reach the HTTP server at {host} port {port}: {reason}"
            connection.send((_FAULT, request_id, type(error).__name__, text))
            return
        except asyncio.CancelledError:
            connection.send((_REFUSED, request_id, "the service stopped"))
            raise
        if connection.closed.done():
            writer.transport.abort()  # the relay was lost while the server was connected
            return
        task = asyncio.current_task()
        assert task
        self._running[task] = tunnel = accept()
        await splice(tunnel, reader, writer)


async def splice(tunnel: Tunnel, reader: StreamReader, writer: StreamWriter) -> None:
    """Forward bytes in both directions until both are closed, or one side fails.

    A half-close is forwarded as a half-close. A failure aborts the other side, so that a truncated
    response never looks complete.
    """
    sending = asyncio.create_task(_send(tunnel, reader))
    try:
        async for data in tunnel:
            writer.write(data)
            await writer.drain()
        if tunnel.peer_reads:
            writer.write_eof()
            await sending
        await tunnel.close()
        writer.close()
    except TunnelClosed as error:
        log.debug("a tunnel to the HTTP server closed: %s", error)
    except OSError as error:
        tunnel.abort(_text(error), type(error).__name__)
    finally:
        sending.cancel()
        if not writer.is_closing():
            tunnel.abort("the connection to the HTTP server was aborted")
            writer.transport.abort()


async def _send(tunnel: Tunnel, reader: StreamReader) -> None:
    """Forward what the HTTP server sends."""
    try:
        while data := await reader.read(HTTP_SEGMENT):
            await tunnel.send(data)
        tunnel.close_send()
    except TunnelClosed:
        pass  # splice, which reads the tunnel, handles it
    except OSError as error:
        tunnel.abort(_text(error), type(error).__name__)


def _text(error: OSError) -> str:
    return f"the connection to the HTTP server failed: {error.strerror or error}"
