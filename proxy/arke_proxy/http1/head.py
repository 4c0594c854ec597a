"""Heads of requests and responses: parsed once, strictly, into what the proxy needs.

httptools (llhttp) checks the syntax: characters, line ends, folded lines, spaces before a colon,
repeated or malformed lengths. Here is checked what the syntax leaves open.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

import httptools

from arke_proxy.errors import Malformed
from arke_proxy.http1.fields import FORWARDED, HOP_BY_HOP, MAX_FIELDS, Field, tokens, without

_ABSOLUTE = re.compile(rb"(?i:https?)://(?P<authority>[^/?]*)(?P<path>.*)")
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]{0,5})?")
_PROTOCOL = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:/[!#$%&'*+.^_`|~0-9A-Za-z-]+)?")
_ASIDE_IN_REQUESTS = FORWARDED | {b"host"}
_NOTHING: frozenset[bytes] = frozenset()
_CONNECTION_OPTIONS = {b"close", b"keep-alive", b"upgrade"}  # those that name no field to be kept
_STATUS_LINE = re.compile(rb"HTTP/1\.(?P<minor>[01]) (?P<status>[1-9][0-9]{2})(?: (?P<reason>.*))?")


class RequestHead(NamedTuple):
    """A request that can be forwarded."""

    method: bytes
    target: bytes  # in origin form, or `*`
    is_1_0: bool
    host: bytes | None  # None only in HTTP/1.0
    fields: list[Field]  # end to end, in the client's order and spelling; without those below
    length: int | None  # of the body; None if it is chunked or there is none
    chunked: bool
    keep_alive: bool  # the client is willing
    upgrade: bytes | None = None  # the protocol that it asks to switch to


class ResponseHead(NamedTuple):
    """A response that can be forwarded."""

    status: int
    status_text: bytes  # `200 OK`
    fields: list[Field]  # end to end, in the back end's order and spelling; without the length
    length: int | None
    chunked: bool
    keep_alive: bool  # the back end is willing
    upgrade: bytes | None = None  # the protocol that it switches to, with 101


def has_body(head: ResponseHead, method: bytes) -> bool:
    """Say whether this answer to `method` has a body, be it empty (RFC 9112, 6.3)."""
    return method != b"HEAD" and head.status not in (204, 304)


class _Parsed:
    """Collects what llhttp finds in one head."""

    __slots__ = ("fields", "whole")

    def __init__(self) -> None:
        self.fields: list[Field] = []
        self.whole = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))

    def on_headers_complete(self) -> None:
        self.whole = True


def parse_request(raw: bytes) -> RequestHead:
    """Read one whole head, its empty line included. Raises Malformed."""
    method, target, is_1_0 = _read_request_line(raw[: raw.find(b"\r\n")])
    parsed = _Parsed()
    parser = httptools.HttpRequestParser(parsed)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass  # CONNECT is refused below; an upgrade is answered as if it had not been asked for
    except httptools.HttpParserError as error:
        raise Malformed(f"{error}") from None
    # llhttp skips line ends that precede the method; a back end may not.
    if not parsed.whole or parser.get_method() != method:
        raise Malformed("its head is malformed")
    if method == b"CONNECT":
        raise Malformed("this proxy opens no tunnels", 501)

    fields, aside, length, chunked, keep_alive = _sort(parsed.fields, is_1_0, _ASIDE_IN_REQUESTS)
    host = _only_host(aside) if aside else None
    if target[0] != 0x2F:  # "/"
        target, host = _resolve_target(method, target, host)
    elif b"#" in target:
        raise Malformed("its target has a fragment")
    if host is None and not is_1_0:
        raise Malformed("it has no Host field")
    # With a body, nobody could say where the new protocol begins.
    may_switch = method == b"GET" and not (is_1_0 or length or chunked)
    upgrade = _upgrade(parsed.fields) if may_switch else None
    return RequestHead(method, target, is_1_0, host, fields, length, chunked, keep_alive, upgrade)


def parse_response(raw: bytes) -> ResponseHead:
    """Read one whole head, its empty line included. Raises Malformed."""
    status, status_text, is_1_0 = _read_status_line(raw[: raw.find(b"\r\n")])
    parsed = _Parsed()
    try:
        httptools.HttpResponseParser(parsed).feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass  # or an offer of one, in another answer
    except httptools.HttpParserError as error:
        raise Malformed(f"{error}") from None
    if not parsed.whole:
        raise Malformed("its head is malformed")

    fields, _, length, chunked, keep_alive = _sort(parsed.fields, is_1_0, _NOTHING)
    upgrade = _upgrade(parsed.fields) if status == 101 else None
    return ResponseHead(status, status_text, fields, length, chunked, keep_alive, upgrade)


class _Sorted(NamedTuple):
    fields: list[Field]  # end to end
    aside: list[Field]  # those asked for, with their names in lower case
    length: int | None
    chunked: bool
    keep_alive: bool


def _sort(
    parsed: list[Field],
    is_1_0: bool,
    aside_names: frozenset[bytes],
) -> _Sorted:
    if len(parsed) > MAX_FIELDS:
        raise Malformed(f"it has more than {MAX_FIELDS} fields", 431)
    fields: list[Field] = []
    aside: list[Field] = []
    length: int | None = None
    chunked = False
    named: set[bytes] = set()
    for field in parsed:
        name = field[0].lower()
        if name == b"content-length":
            length = int(field[1])
        elif name in aside_names:
            aside.append((name, field[1]))
        elif name not in HOP_BY_HOP:
            fields.append(field)
        elif name == b"connection":
            named |= tokens(field[1])
        elif name == b"transfer-encoding":
            if is_1_0 or field[1].strip().lower() != b"chunked":
                raise Malformed("its transfer coding is not chunked, of HTTP/1.1")
            chunked = True
    keep_alive = b"close" not in named and (not is_1_0 or b"keep-alive" in named)
    named -= _CONNECTION_OPTIONS
    if named:
        fields = without(fields, named)
    return _Sorted(fields, aside, length, chunked, keep_alive)


def _upgrade(fields: list[Field]) -> bytes | None:
    """The one protocol that Upgrade names, where Connection names Upgrade (RFC 9110, 7.8)."""
    offers = [value.strip() for name, value in fields if name.lower() == b"upgrade"]
    if len(offers) != 1 or not _PROTOCOL.fullmatch(offers[0]):
        return None
    named = (tokens(value) for name, value in fields if name.lower() == b"connection")
    return offers[0].lower() if any(b"upgrade" in options for options in named) else None


def _only_host(aside: list[Field]) -> bytes | None:
    hosts = [value for name, value in aside if name == b"host"]
    if len(hosts) > 1:
        raise Malformed("it has two Host fields")
    return _checked_host(hosts[0].strip()) if hosts else None


@lru_cache(maxsize=1024)  # a proxy sees few hosts, very often
def _checked_host(host: bytes) -> bytes:
    if not _HOST.fullmatch(host):
        raise Malformed("its Host field is malformed")
    return host


def _resolve_target(method: bytes, target: bytes, host: bytes | None) -> tuple[bytes, bytes | None]:
    """Turn the absolute form into the origin form (RFC 9112, 3.2.2)."""
    if target == b"*" and method == b"OPTIONS":
        return target, host
    match = _ABSOLUTE.fullmatch(target)
    if not match or b"#" in target:
        raise Malformed("its target is neither a path nor a URL")
    authority = match["authority"]
    if not authority:
        raise Malformed("its target names no host")
    if host is not None and host.lower() != authority.lower():
        raise Malformed("its target and its Host field name different hosts")
    path = match["path"]
    if not path.startswith(b"/"):
        path = b"*" if method == b"OPTIONS" and not path else b"/" + path
    return path, _checked_host(authority)


def _read_request_line(line: bytes) -> tuple[bytes, bytes, bool]:
    parts = line.split(b" ")
    if len(parts) == 3:
        method, target, version = parts
        if version == b"HTTP/1.1":
            return method, target, False
        if version == b"HTTP/1.0":
            return method, target, True
        if re.fullmatch(rb"HTTP/[0-9]\.[0-9]", version):
            raise Malformed("this proxy speaks HTTP/1.1 and HTTP/1.0", 505)
    raise Malformed("its first line is not METHOD TARGET VERSION")


@lru_cache(maxsize=256)
def _read_status_line(line: bytes) -> tuple[int, bytes, bool]:
    match = _STATUS_LINE.fullmatch(line)
    if not match:
        raise Malformed("it does not begin with an HTTP/1.1 status line")
    reason = match["reason"] or b""
    if not reason.decode("latin-1").isprintable():
        reason = b""
    return int(match["status"]), match["status"] + b" " + reason, match["minor"] == b"0"
