"""Converts HTTP/2 header fields to heads, and back (RFC 9113, 8).

A request is written as an HTTP/1.1 head, which the strict HTTP/1.1 parser then checks: one set of
rules decides what may reach a backend. This module checks only what such a head cannot express,
and what HTTP/2 alone forbids.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from arke_proxy.errors import MalformedMessage
from arke_proxy.http.header_fields import Field
from arke_proxy.http.messages import RequestHead, ResponseHead
from arke_proxy.http1.body import kept_trailer
from arke_proxy.http1.head_buffer import HeadBuffer
from arke_proxy.http1.head_parser import parse_translated

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
_WORD = re.compile(rb"[\x21-\x7e]+")  # for the request line and the authority
_PSEUDO = frozenset((b":authority", b":method", b":path", b":scheme"))
_VERSION = b"2.0"  # as in RFC 9110, 2.5
_SCHEMES = frozenset((b"http", b"https"))  # a proxy in front may have terminated TLS
_CONNECTION_FIELDS = frozenset(
    (
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-connection",
        b"transfer-encoding",
        b"upgrade",
    )
)


def read_request(fields: Iterable[Field], *, complete: bool) -> RequestHead:
    """Parse a request. `complete`: no body follows. Raises MalformedMessage."""
    pseudo: dict[bytes, bytes] = {}
    lines: list[bytes] = []
    cookies: list[bytes] = []
    host: bytes | None = None
    has_length = False
    for name, value in fields:
        if name.startswith(b":"):
            if lines or cookies or host is not None:
                raise MalformedMessage("a pseudo-header field follows a regular field")
            _add_pseudo(pseudo, name, value)
            continue
        _check_field(name, value)
        if name == b"cookie":
            cookies.append(value)
        elif name == b"host":
            if host is not None:
                raise MalformedMessage("it has two Host fields")
            host = value
        else:
            has_length = has_length or name == b"content-length"
            lines.append(b"%b: %b\r\n" % (name, value))
    if cookies:  # RFC 9113, 8.2.3
        lines.append(b"cookie: %b\r\n" % b"; ".join(cookies))
    method, target = _method_and_path(pseudo)
    if not complete and not has_length:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    first = b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (method, target, _authority(pseudo, host))
    head = parse_translated(_block(first, *lines), _VERSION)
    if complete and head.length:
        raise MalformedMessage("it has a Content-Length, but no body")
    return head


def read_trailer(fields: Iterable[Field]) -> bytes:
    """Return the trailer lines that may be forwarded. Raises MalformedMessage."""
    lines = []
    for name, value in fields:
        _check_field(name, value)
        lines.append(b"%b: %b\r\n" % (name, value))
    return kept_trailer(_block(*lines))


def response_fields(head: ResponseHead) -> list[Field]:
    """Return the HTTP/2 fields of a response."""
    fields = [(b":status", b"%d" % head.status)]
    fields += [(name.lower(), value.strip()) for name, value in head.fields]
    if head.length is not None and head.status != 204:
        fields.append((b"content-length", b"%d" % head.length))
    fields.append((b"via", b"%b arke" % head.version))
    return fields


def own_fields(status: int, fields: Iterable[Field]) -> list[Field]:
    """Return the HTTP/2 fields of the proxy's own response."""
    return [(b":status", b"%d" % status), *((name.lower(), value) for name, value in fields)]


def trailer_fields(lines: bytes) -> list[Field]:
    """Return the HTTP/2 fields of a trailer, from the trailer lines of a chunked body."""
    fields = []
    for line in lines.splitlines():
        name, _, value = line.partition(b":")
        fields.append((name.lower(), value.strip()))
    return fields


def _block(*lines: bytes) -> bytes:
    block = b"".join((*lines, b"\r\n"))
    if len(block) > HeadBuffer.MAX_HEAD:
        raise MalformedMessage(f"its fields are larger than {HeadBuffer.MAX_HEAD} bytes", 431)
    return block


def _add_pseudo(pseudo: dict[bytes, bytes], name: bytes, value: bytes) -> None:
    if name not in _PSEUDO:
        raise MalformedMessage("it has an unknown pseudo-header field")
    if name in pseudo:
        raise MalformedMessage("it has a pseudo-header field twice")
    if not _WORD.fullmatch(value):
        raise MalformedMessage("a pseudo-header field is empty or has invalid characters")
    pseudo[name] = value


def _check_field(name: bytes, value: bytes) -> None:
    if not _NAME.fullmatch(name):
        raise MalformedMessage("a field name is malformed, or not in lower case")
    if not _VALUE.fullmatch(value):
        raise MalformedMessage("a field value has invalid characters")
    if name in _CONNECTION_FIELDS or (name == b"te" and value.lower() != b"trailers"):
        raise MalformedMessage("it has a field that HTTP/2 forbids")


def _method_and_path(pseudo: dict[bytes, bytes]) -> tuple[bytes, bytes]:
    method = pseudo.get(b":method")
    if method == b"CONNECT":
        raise MalformedMessage("this proxy does not support CONNECT", 501)
    path = pseudo.get(b":path")
    if method is None or path is None or b":scheme" not in pseudo:
        raise MalformedMessage("it has no :method, :scheme or :path")
    if pseudo[b":scheme"].lower() not in _SCHEMES:
        raise MalformedMessage("its :scheme is neither http nor https")
    if len(method) + len(path) > HeadBuffer.MAX_LINE:
        raise MalformedMessage(f"its :path is longer than {HeadBuffer.MAX_LINE} bytes", 414)
    if not path.startswith(b"/") and (path, method) != (b"*", b"OPTIONS"):
        raise MalformedMessage("its :path is not a path")
    return method, path


def _authority(pseudo: dict[bytes, bytes], host: bytes | None) -> bytes:
    authority = pseudo.get(b":authority")
    if authority is None:
        authority = host
    elif host is not None and host.lower() != authority.lower():
        raise MalformedMessage("its :authority and its Host field name different hosts")
    if not authority or not _WORD.fullmatch(authority):
        raise MalformedMessage("it has neither :authority nor Host")
    return authority
