"""A few lines of HTTP: enough for Prometheus and a health check, and nothing for anybody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus

from arke.program.logging import Log
from arke_relay.errors import ConfigurationError
from arke_relay.metrics.exposition import CONTENT_TYPE, Exposition
from arke_relay.metrics.names import Snap

_MOST_CONNECTIONS = 16
_MOST_HEAD = 8192  # bytes of a request's head
_PATIENCE = 5.0  # seconds for all of a connection


@dataclass(frozen=True, slots=True)
class _Reply:
    status: HTTPStatus
    body: bytes
    type: str = "text/plain; charset=utf-8"


class MetricsServer:
    """Serves `/metrics`, `/healthz` and `/readyz` to GET and HEAD, one request a connection.

    `unready` returns why the relay is not ready, or None. Whoever is slow is cut off after 5 s, or
    sooner, when a 17th connection comes: the oldest makes room, so that holding connections
    open keeps nobody out.
    """

    def __init__(self, snap: Snap, unready: Callable[[], str | None], log: Log) -> None:
        self._exposition = Exposition(snap)
        self._unready = unready
        self._log = log
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], None] = {}

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen, and return where. Raises ConfigurationError when that is not possible."""
        try:
            self._server = await asyncio.start_server(
                self._accept, host or None, port, limit=_MOST_HEAD
            )
        except OSError as error:
            raise ConfigurationError(
                f"-metrics {host}:{port} cannot be listened on ({error.strerror or error}): "
                "choose another address or port"
            ) from error
        address: tuple[str, int] = self._server.sockets[0].getsockname()[:2]
        return address

    async def stop(self) -> None:
        """Close everything at once."""
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= _MOST_CONNECTIONS:
            oldest = next(iter(self._connections))
            del self._connections[oldest]
            oldest.cancel()
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections[connection] = None
        connection.add_done_callback(lambda done: self._connections.pop(done, None))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # Whoever hangs up or is too slow has no reply coming.
            with suppress(OSError, asyncio.IncompleteReadError):
                async with asyncio.timeout(_PATIENCE):
                    await self._converse(reader, writer)
        finally:
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            method, reply = "", _plain(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        else:
            method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
            reply = self._reply(method, rest)
        writer.write(_head(reply))
        if method != "HEAD":
            writer.write(reply.body)
        await writer.drain()
        writer.write_eof()
        # Closing on bytes that were not read would reset the connection, and the reply with it.
        while await reader.read(_MOST_HEAD):
            pass

    def _reply(self, method: str, rest: str) -> _Reply:
        target, _, version = rest.partition(" ")
        if not version.startswith("HTTP/1."):
            return _plain(HTTPStatus.BAD_REQUEST)
        if method not in {"GET", "HEAD"}:
            return _plain(HTTPStatus.METHOD_NOT_ALLOWED)
        match target.partition("?")[0]:
            case "/metrics":
                return self._metrics()
            case "/healthz":
                return _plain(HTTPStatus.OK)
            case "/readyz":
                why = self._unready()
                return _plain(HTTPStatus.SERVICE_UNAVAILABLE if why else HTTPStatus.OK, why)
            case _:
                return _plain(HTTPStatus.NOT_FOUND, "try /metrics, /healthz or /readyz")

    def _metrics(self) -> _Reply:
        try:
            return _Reply(HTTPStatus.OK, self._exposition.render(), CONTENT_TYPE)
        except Exception:  # noqa: BLE001  a number that is missing or odd ends no conversation
            self._log.limited("metrics", 60.0).exception("metrics cannot be shown")
            return _plain(HTTPStatus.INTERNAL_SERVER_ERROR, "see the relay's log")


def _plain(status: HTTPStatus, text: str | None = None) -> _Reply:
    return _Reply(status, f"{text or status.phrase}\n".encode())


def _head(reply: _Reply) -> bytes:
    lines = (
        f"HTTP/1.1 {reply.status.value} {reply.status.phrase}",
        f"Content-Type: {reply.type}",
        f"Content-Length: {len(reply.body)}",
        "Allow: GET, HEAD",
        "Cache-Control: no-store",
        "Connection: close",
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()
