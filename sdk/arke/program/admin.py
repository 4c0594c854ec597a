"""HTTP server for admin pages: health, readiness and metrics, one request per connection.

It serves GET and HEAD. Connections are bounded in number, size and time, so that a slow or silent
client cannot keep monitoring out.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus

from arke.program.host_names import ALWAYS, HostNames
from arke.program.logging import Log

_MAX_HEAD = 8192  # bytes of a request's head
_TIMEOUT = 5.0  # seconds for a whole connection
_LOG_INTERVAL = 60.0  # seconds between two log lines about a page that fails


@dataclass(frozen=True, slots=True)
class Page:
    """A response."""

    status: HTTPStatus
    body: bytes
    content_type: str = "text/plain; charset=utf-8"

    @classmethod
    def text(cls, status: HTTPStatus, text: str | None = None) -> Page:
        """Make a page of one line; the default is the status phrase."""
        return cls(status, f"{text or status.phrase}\n".encode())


PageHandlers = Mapping[str, Callable[[], Awaitable[Page]]]
"""By path, the handler that makes the page."""


class AdminServer:
    """Serves pages by path.

    A connection is closed after 5 s. When there are `max_connections`, a new connection evicts the
    oldest one. `names` are accepted in the `Host` field, besides IP addresses, `localhost` and this
    machine's name.
    """

    def __init__(
        self, pages: PageHandlers, log: Log, max_connections: int = 16, names: Iterable[str] = ()
    ) -> None:
        self._pages = pages
        self._names = HostNames(names)
        self._log = log
        self._max_connections = max_connections
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], None] = {}  # oldest first

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Bind a socket and serve on it; return its address. Raises OSError."""
        self._server = await asyncio.start_server(self._accept, host or None, port, limit=_MAX_HEAD)
        address: tuple[str, int] = self._server.sockets[0].getsockname()[:2]
        return address

    async def serve(self, sock: socket.socket) -> None:
        """Serve on a bound socket; `stop` closes it."""
        self._server = await asyncio.start_server(self._accept, sock=sock, limit=_MAX_HEAD)

    async def stop(self) -> None:
        """Close the listener and all connections."""
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= self._max_connections:
            oldest = next(iter(self._connections))
            del self._connections[oldest]
            oldest.cancel()
        connection = asyncio.create_task(self._handle(reader, writer))
        self._connections[connection] = None
        connection.add_done_callback(lambda done: self._connections.pop(done, None))

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # A client that disconnects or is too slow gets no response.
            with suppress(OSError, asyncio.IncompleteReadError):
                async with asyncio.timeout(_TIMEOUT):
                    await self._respond(reader, writer)
        finally:
            writer.transport.abort()

    async def _respond(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            method, page = "", Page.text(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        else:
            first, _, fields = head.decode("latin-1").partition("\r\n")
            method, _, rest = first.partition(" ")
            if all(self._names.accept(host) for host in _hosts(fields)):
                page = await self._page(method, rest)
            else:
                text = f"request this page under {ALWAYS}, or configure the name"
                page = Page.text(HTTPStatus.MISDIRECTED_REQUEST, text)
        writer.write(_head(page))
        if method != "HEAD":
            writer.write(page.body)
        await writer.drain()
        writer.write_eof()
        # Closing with unread data in the socket would reset the connection before the client has
        # read the response.
        while await reader.read(_MAX_HEAD):
            pass

    async def _page(self, method: str, rest: str) -> Page:
        target, _, version = rest.partition(" ")
        if not version.startswith("HTTP/1."):
            return Page.text(HTTPStatus.BAD_REQUEST)
        if method not in {"GET", "HEAD"}:
            return Page.text(HTTPStatus.METHOD_NOT_ALLOWED, "use GET or HEAD")
        path = target.partition("?")[0]
        handler = self._pages.get(path)
        if handler is None:
            return Page.text(HTTPStatus.NOT_FOUND, f"the pages are {', '.join(self._pages)}")
        try:
            return await handler()
        except Exception:  # noqa: BLE001  the other pages must still work
            self._log.limited(("admin page", path), _LOG_INTERVAL).exception(
                "admin page failed", path=path
            )
            return Page.text(HTTPStatus.INTERNAL_SERVER_ERROR, "the page failed; see the log")


def _hosts(fields: str) -> list[str]:
    """Return the values of the `Host` fields."""
    pairs = (line.partition(":") for line in fields.split("\r\n"))
    return [value.strip() for name, _, value in pairs if name.strip().lower() == "host"]


def _head(page: Page) -> bytes:
    lines = (
        f"HTTP/1.1 {page.status.value} {page.status.phrase}",
        f"Date: {formatdate(usegmt=True)}",
        f"Content-Type: {page.content_type}",
        f"Content-Length: {len(page.body)}",
        "Allow: GET, HEAD",
        "Cache-Control: no-store",
        "Connection: close",
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()
