"""Heads as the proxy writes them, each in one piece."""

from __future__ import annotations

from typing import NamedTuple

from arke_proxy.choosing.address import Address
from arke_proxy.http1.fields import Field
from arke_proxy.http1.head import RequestHead, ResponseHead, has_body

VIA = b"Via: 1.1 arke\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CLOSE = b"Connection: close\r\n"
KEEP_ALIVE = b"Connection: keep-alive\r\n"  # for HTTP/1.0, where it is not the default


def forwarded_for(peer: str) -> bytes:
    """Return the lines that tell a back end about a client; the same for all of its requests."""
    plain = peer.removeprefix("::ffff:").partition("%")[0]  # IPv4 on an IPv6 socket; the zone
    return b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: http\r\n" % plain.encode()


def request_head(head: RequestHead, forwarded: bytes, back_end: Address) -> bytes:
    """Write the head that the back end gets; `forwarded` is from `forwarded_for`."""
    host = head.host
    if host is None:
        host = back_end.authority.encode()
        forwarded_host = b""
    else:
        forwarded_host = b"X-Forwarded-Host: %b\r\n" % host
    return b"".join(
        (
            b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (head.method, head.target, host),
            _lines(head.fields),
            _framing(head.length, chunked=head.chunked),
            VIA,
            forwarded,
            forwarded_host,
            switching(head.upgrade) if head.upgrade else b"",
            b"\r\n",
        )
    )


class Framing(NamedTuple):
    """How the client learns where an answer's body ends."""

    line: bytes
    chunks: bool = False
    closes: bool = False  # the connection's end is the body's


def response_framing(head: ResponseHead, method: bytes, *, to_1_0: bool) -> Framing:
    """Choose the framing of the answer to `method`."""
    if head.length is not None:
        return Framing(b"" if head.status == 204 else content_length(head.length))
    if not has_body(head, method):
        return Framing(b"")
    return Framing(b"", closes=True) if to_1_0 else Framing(CHUNKED, chunks=True)


def response_head(head: ResponseHead, framing: bytes, connection: bytes) -> bytes:
    """Write the head that the client gets, with the lines for framing and connection."""
    return b"".join(
        (
            b"HTTP/1.1 %b\r\n" % head.status_text,
            _lines(head.fields),
            framing,
            VIA,
            connection,
            b"\r\n",
        )
    )


def connection_line(*, keep_alive: bool, to_1_0: bool) -> bytes:
    """Say what becomes of the client's connection, where it is not what the version implies."""
    if not keep_alive:
        return CLOSE
    return KEEP_ALIVE if to_1_0 else b""


def switching(protocol: bytes) -> bytes:
    """The lines of an answer 101 that say what the connection becomes."""
    return b"Connection: Upgrade\r\nUpgrade: %b\r\n" % protocol


def content_length(length: int) -> bytes:
    return b"Content-Length: %d\r\n" % length


def _framing(length: int | None, *, chunked: bool) -> bytes:
    if chunked:
        return CHUNKED
    return b"" if length is None else content_length(length)


def _lines(fields: list[Field]) -> bytes:
    return b"".join([b"%b: %b\r\n" % field for field in fields])
