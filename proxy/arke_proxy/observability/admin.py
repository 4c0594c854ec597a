"""A few pages for operators and their monitors, on a listener of their own.

/-/healthz    200 while a worker answers at all: whoever does not is to be restarted
/-/readyz     200 while requests can be answered, 503 with the reason otherwise
/-/backends   JSON: each worker's view of its backends
/-/metrics    for Prometheus, all workers together
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple, cast

from arke_proxy.errors import MalformedMessage
from arke_proxy.http.date import http_date
from arke_proxy.http1.head_buffer import HeadBuffer
from arke_proxy.http1.head_parser import parse_request
from arke_proxy.log import log

MOST_CONNECTIONS = 8
_PATIENCE = 5.0  # seconds for all of a connection
_TEXT = "text/plain; charset=utf-8"


class Page(NamedTuple):
    """What is answered."""

    status: HTTPStatus
    body: bytes
    type: str = _TEXT


Pages = Mapping[bytes, Callable[[], Awaitable[Page]]]
"""Path → what makes the page."""


class Admin:
    """Answers GET and HEAD, one request a connection.

    Whoever is slow is cut off after 5 s, or sooner, when a ninth connection comes: the oldest makes
    room, so that holding connections open keeps nobody out.
    """

    def __init__(self, pages: Pages) -> None:
        self.pages = pages
        self.visitors: dict[_Visitor, None] = {}
        self._server: asyncio.Server | None = None

    async def start(self, sock: socket.socket) -> None:
        """Begin to accept; the socket is closed by `stop`."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Visitor(self, loop), sock=sock)

    def stop(self) -> None:
        """Close everything at once."""
        if self._server:
            self._server.close()
        for visitor in list(self.visitors):
            visitor.leave()


class _Visitor(asyncio.Protocol):
    def __init__(self, admin: Admin, loop: asyncio.AbstractEventLoop) -> None:
        self._admin = admin
        self._loop = loop
        self._heads = HeadBuffer()
        self._transport: asyncio.Transport
        self._answering: asyncio.Task[None] | None = None
        self._timer = loop.call_later(_PATIENCE, self.leave)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        visitors = self._admin.visitors
        if len(visitors) >= MOST_CONNECTIONS:
            next(iter(visitors)).leave()
        visitors[self] = None

    def data_received(self, data: bytes) -> None:
        if self._answering:
            return  # one request a connection
        try:
            raw = self._heads.take(data)
            head = parse_request(raw) if raw else None
        except MalformedMessage as fault:
            page = Page(HTTPStatus(fault.status), f"The request is rejected: {fault}.\n".encode())
            self._send(page, with_body=True)
            return
        if head:
            answer = self._answer(head.method, head.target)
            self._answering = self._loop.create_task(answer)

    def eof_received(self) -> bool:
        return self._answering is not None

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._timer.cancel()
        if self._answering:
            self._answering.cancel()
        self._admin.visitors.pop(self, None)

    def leave(self) -> None:
        """End the connection at once."""
        self._admin.visitors.pop(self, None)
        self._transport.abort()

    async def _answer(self, method: bytes, target: bytes) -> None:
        make = self._admin.pages.get(target.partition(b"?")[0])
        if method not in (b"GET", b"HEAD"):
            page = _plain(HTTPStatus.METHOD_NOT_ALLOWED, "GET and HEAD only")
        elif make is None:
            names = b", ".join(self._admin.pages).decode()
            page = _plain(HTTPStatus.NOT_FOUND, f"there are {names}")
        else:
            try:
                page = await make()
            except Exception:  # noqa: BLE001  a number that is odd ends no conversation
                log.exception("the page %s cannot be shown", target.decode("latin-1"))
                page = _plain(HTTPStatus.INTERNAL_SERVER_ERROR, "see the proxy's log")
        self._send(page, with_body=method != b"HEAD")

    def _send(self, page: Page, *, with_body: bool) -> None:
        lines = (
            f"HTTP/1.1 {page.status.value} {page.status.phrase}",
            f"Date: {http_date(time.time()).decode()}",
            f"Content-Type: {page.type}",
            f"Content-Length: {len(page.body)}",
            "Allow: GET, HEAD",
            "Cache-Control: no-store",
            "Connection: close",
            "",
            "",
        )
        self._transport.write("\r\n".join(lines).encode() + (page.body if with_body else b""))
        self._transport.close()


def _plain(status: HTTPStatus, text: str) -> Page:
    return Page(status, f"{text}\n".encode())
