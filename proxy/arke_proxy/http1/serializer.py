"""Heads as the proxy writes them, each in one piece."""

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
    """Write what every backend gets of a head; None for one that names no host."""
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
    """Write the head that the backend gets; `forwarded` is from ClientOrigin.passed_on."""
    begin = head.begin
    if begin is None:
        host = backend.authority.encode() if head.host is None else head.host
        begin = _request_begin(head, host)
    return b"".join((begin, forwarded, b"\r\n"))


class Framing(NamedTuple):
    """How the client learns where an answer's body ends."""

    line: bytes
    chunked: bool = False
    closes: bool = False  # the connection's end is the body's


def response_framing(head: ResponseHead, method: bytes, *, to_1_0: bool) -> Framing:
    """Choose the framing of the answer to `method`."""
    if head.length is not None:
        return Framing(b"" if head.status == 204 else content_length(head.length))
    if not has_body(head, method):
        return Framing(b"")
    return Framing(b"", closes=True) if to_1_0 else Framing(CHUNKED, chunked=True)


def response_begin(head: ResponseHead) -> bytes | None:
    """Write what every client gets of a head; None where it depends on the client, or the time."""
    if head.length is None or head.status == 204 or not head.dated:
        return None
    return response_start(head, content_length(head.length))


def response_start(head: ResponseHead, framing: bytes) -> bytes:
    """Write a head, with the line for its framing, but for what is said of the connection."""
    return b"HTTP/1.1 %b\r\n%b%bVia: %b arke\r\n" % (
        head.status_text,
        written(head.fields) if head.lines is None else head.lines,
        framing,
        head.version,
    )


def date_line(now: float) -> bytes:
    """Say when an answer came, for a backend that has not (RFC 9110, 6.6.1)."""
    return b"Date: %b\r\n" % http_date(now)


def response_head(head: ResponseHead, framing: bytes, connection: bytes) -> bytes:
    """Write the head that the client gets, with the lines for framing and connection."""
    return b"%b%b\r\n" % (response_start(head, framing), connection)


def connection_line(*, keep_alive: bool, to_1_0: bool) -> bytes:
    """Say what becomes of the client's connection, where it is not what the version implies."""
    if not keep_alive:
        return CLOSE
    return KEEP_ALIVE if to_1_0 else b""


def content_length(length: int) -> bytes:
    return b"Content-Length: %d\r\n" % length


def upgrade_lines(protocol: bytes) -> bytes:
    """Ask for another protocol, or agree to it: the lines that say what a connection becomes."""
    return b"Connection: Upgrade\r\nUpgrade: %b\r\n" % protocol
