"""Serializes request and response heads, each into one bytes object."""

from __future__ import annotations

from typing import Final, NamedTuple

from arke_proxy.backends.address import BackendAddress
from arke_proxy.http.date import http_date
from arke_proxy.http.header_fields import written
from arke_proxy.http.messages import RequestHead, ResponseHead, has_body

CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"
CLOSE: Final = b"Connection: close\r\n"
KEEP_ALIVE: Final = b"Connection: keep-alive\r\n"  # for HTTP/1.0, where it is not the default


def request_begin(head: RequestHead) -> bytes | None:
    """Write the part of a head that is the same for all backends; None for a head without host."""
    return None if head.host is None else _request_begin(head, head.host)


def _request_begin(head: RequestHead, host: bytes) -> bytes:
    if head.chunked:
        framing = CHUNKED
    else:
        framing = b"" if head.length is None else content_length(head.length)
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%b%bVia: %b arke\r\n" % (
        head.method,
        head.target,
        host,
        written(head.fields) if head.lines is None else head.lines,
        framing,
        upgrade_lines(head.upgrade) if head.upgrade else b"",
        head.version,
    )


def request_head(head: RequestHead, forwarded: bytes, backend: BackendAddress) -> bytes:
    """Write the head for a backend; `forwarded` is from ClientOrigin.forwarded_lines."""
    begin = head.begin
    if begin is None:
        host = backend.authority.encode() if head.host is None else head.host
        begin = _request_begin(head, host)
    return b"".join((begin, forwarded, b"\r\n"))


class ResponseFraming(NamedTuple):
    """How the client recognises the end of a response's body."""

    line: bytes
    chunked: bool = False
    closes: bool = False  # the body ends where the connection is closed


def response_framing(head: ResponseHead, method: bytes, *, to_1_0: bool) -> ResponseFraming:
    """Choose the framing of a response to `method`."""
    if head.length is not None:
        return ResponseFraming(b"" if head.status == 204 else content_length(head.length))
    if not has_body(head, method):
        return ResponseFraming(b"")
    return ResponseFraming(b"", closes=True) if to_1_0 else ResponseFraming(CHUNKED, chunked=True)


def response_begin(head: ResponseHead) -> bytes | None:
    """Write the part of a head that is the same for all clients; None if it may differ."""
    if head.length is None or head.status == 204 or not head.dated:
        return None
    return response_start(head, content_length(head.length))


def response_start(head: ResponseHead, framing: bytes) -> bytes:
    """Write a head up to the Connection line; `framing` is the framing line."""
    return b"HTTP/1.1 %b\r\n%b%bVia: %b arke\r\n" % (
        head.status_text,
        written(head.fields) if head.lines is None else head.lines,
        framing,
        head.version,
    )


def date_line(now: float) -> bytes:
    """Write a Date line, for a response without one (RFC 9110, 6.6.1)."""
    return b"Date: %b\r\n" % http_date(now)


def response_head(head: ResponseHead, framing: bytes, connection: bytes) -> bytes:
    """Write a head with these lines for framing and connection."""
    return b"%b%b\r\n" % (response_start(head, framing), connection)


def connection_line(*, keep_alive: bool, to_1_0: bool) -> bytes:
    """Write the Connection line; b"" to keep an HTTP/1.1 connection open, its default."""
    if not keep_alive:
        return CLOSE
    return KEEP_ALIVE if to_1_0 else b""


def content_length(length: int) -> bytes:
    return b"Content-Length: %d\r\n" % length


def upgrade_lines(protocol: bytes) -> bytes:
    """Write the lines that request a switch of protocols, or confirm it."""
    return b"Connection: Upgrade\r\nUpgrade: %b\r\n" % protocol
