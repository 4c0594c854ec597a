"""Parses the heads of requests and responses, strictly.

This is the hot path. Heads that were seen before, byte for byte, are taken from a cache: whole
heads, and the parts of request heads after the target, because often only the target differs.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

from arke_proxy.errors import MalformedMessage
from arke_proxy.http.header_fields import FORWARDED, HOP_BY_HOP, LOOKALIKE, Field, tokens, written
from arke_proxy.http.messages import RequestHead, ResponseHead
from arke_proxy.http.request_target import METHODS, checked_host, resolve_target
from arke_proxy.http1.field_parser import FieldLine, parse_lines
from arke_proxy.http1.serializer import request_begin, response_begin

_ORIGIN: Final = re.compile(rb"/[!-\"$-~]*")  # no fragment
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_MAX_FORWARDS: Final = b"max-forwards"
_VERSION: Final = re.compile(rb"HTTP/[0-9]\.[0-9]")
_STATUS_LINE: Final = re.compile(
    rb"HTTP/1\.(?P<minor>[01]) (?P<status>[1-9][0-9]{2})(?: (?P<reason>[^\r\n\x00]*))?"
)
# Protocols that a connection may switch to. No form of HTTP (h2c, HTTP/2.0, TLS/1.0): requests in
# it would reach a backend unchecked.
_UPGRADES: Final = frozenset((b"websocket",))
_CONNECTION_OPTIONS: Final = {
    b"close",
    b"keep-alive",
    b"upgrade",
}  # options that are no field names
_SPECIAL_IN_RESPONSES: Final = HOP_BY_HOP | {b"content-length"}
_SPECIAL_IN_REQUESTS: Final = _SPECIAL_IN_RESPONSES | FORWARDED | {b"expect", b"host", LOOKALIKE}
_NO_NAMES: frozenset[bytes] = frozenset()
_CACHE_SIZE: Final = 256  # entries in each cache
_MAX_CACHED_SIZE: Final = 2048  # bytes of an entry


def parse_request(raw: bytes) -> RequestHead:
    """Parse a complete head, with its empty line. Raises MalformedMessage."""
    parse = _cached_request if len(raw) <= _MAX_CACHED_SIZE else _parse_request
    return parse(raw)


def parse_translated(raw: bytes, version: bytes) -> RequestHead:
    """Parse an HTTP/2 request, written as an HTTP/1.1 head. Raises MalformedMessage."""
    parse = _cached_request if len(raw) <= _MAX_CACHED_SIZE else _parse_request
    return parse(raw, version)


def _parse_request(raw: bytes, version: bytes | None = None) -> RequestHead:
    method, _, rest = raw.partition(b" ")
    target, _, tail = rest.partition(b" ")
    parse = _cached_tail if len(tail) <= _MAX_CACHED_SIZE else _parse_tail
    is_1_0, host, fields, lines, (length, chunked, keep_alive, upgrade, _), forwarded = parse(tail)
    if method not in METHODS:
        raise MalformedMessage("its method is unknown")
    if method == b"CONNECT":
        raise MalformedMessage("this proxy does not support CONNECT", 501)
    if method == b"TRACE":  # the response would reveal the fields that this proxy adds
        raise MalformedMessage("this proxy does not support TRACE", 501)
    if method == b"OPTIONS":
        fields, lines = _decrement_max_forwards(fields, lines)
    if host is None and not is_1_0:
        raise MalformedMessage("it has no Host field")
    if not _ORIGIN.fullmatch(target):
        target, host = resolve_target(method, target, host)
    if upgrade and method != b"GET":
        upgrade = None
    head = RequestHead(
        method,
        target,
        host,
        fields,
        is_1_0=is_1_0,
        length=length,
        chunked=chunked,
        keep_alive=keep_alive,
        upgrade=upgrade,
        forwarded=forwarded,
        lines=lines,
        version=version or (b"1.0" if is_1_0 else b"1.1"),
    )
    head.begin = request_begin(head)
    return head


def parse_response(raw: bytes) -> ResponseHead:
    """Parse a complete head, with its empty line. Raises MalformedMessage.

    The caller checks that a 101 response answers a request with Upgrade.
    """
    parse = _cached_response if len(raw) <= _MAX_CACHED_SIZE else _parse_response
    return parse(raw)


def _parse_response(raw: bytes) -> ResponseHead:
    line, _, block = raw.partition(b"\r\n")
    status, status_text, is_1_0 = _parse_status_line(line)
    parse = _cached_response_fields if len(block) <= _MAX_CACHED_SIZE else _parse_response_fields
    fields, lines, dated, (length, chunked, keep_alive, upgrade, _) = parse(block, is_1_0)
    if status < 200 and (length is not None or chunked):
        raise MalformedMessage("its status does not allow a body, but it has one")
    if status == 204 and (length or chunked):
        keep_alive = False  # the next bytes may be a body, or the next response
    if status != 101:
        upgrade = None
    elif is_1_0 or upgrade is None:
        raise MalformedMessage("it switches protocols without naming one")
    head = ResponseHead(
        status,
        status_text,
        fields,
        length=length,
        chunked=chunked,
        keep_alive=keep_alive,
        upgrade=upgrade,
        lines=lines,
        version=b"1.0" if is_1_0 else b"1.1",
        dated=dated or status < 200,
    )
    head.begin = response_begin(head)
    return head


class HeadFraming(NamedTuple):
    length: int | None
    chunked: bool
    keep_alive: bool
    upgrade: bytes | None  # what `Connection` and one `Upgrade` field agree on
    named: frozenset[bytes]  # the fields that `Connection` lists


class RequestTail(NamedTuple):
    """The part of a request head after the target."""

    is_1_0: bool
    host: bytes | None
    fields: tuple[Field, ...]
    lines: bytes
    framing: HeadFraming
    forwarded: tuple[Field, ...]


def _parse_tail(tail: bytes) -> RequestTail:
    version, _, block = tail.partition(b"\r\n")
    is_1_0 = _is_1_0(version)
    fields, lines_out, special, framing = _sort_fields(block, _SPECIAL_IN_REQUESTS, is_1_0=is_1_0)
    length, chunked, _, upgrade, _ = framing
    if upgrade and (is_1_0 or length or chunked or upgrade not in _UPGRADES):
        framing = framing._replace(upgrade=None)
    host: bytes | None = None
    forwarded: list[Field] = []
    for name, (spelling, value), text in special:
        if name == b"host":
            if host is not None:
                raise MalformedMessage("it has two Host fields")
            host = checked_host(value)
        elif name in FORWARDED:
            forwarded.append((name, value))
        elif name == LOOKALIKE:
            raise MalformedMessage("a field name could be mistaken for another one by the backend")
        elif name == b"expect" and _expects_100(value) and not is_1_0 and (length or chunked):
            # Forwarded with a body only: without one, some backends would wait for it.
            fields.append((spelling, value))
            lines_out.append(text)
    return RequestTail(is_1_0, host, tuple(fields), b"".join(lines_out), framing, tuple(forwarded))


def _parse_response_fields(
    block: bytes, is_1_0: bool
) -> tuple[tuple[Field, ...], bytes, bool, HeadFraming]:
    fields, lines_out, _, framing = _sort_fields(block, _SPECIAL_IN_RESPONSES, is_1_0=is_1_0)
    lines = b"".join(lines_out)
    dated = b"\ndate:" in b"\n" + lines.lower()
    return tuple(fields), lines, dated, framing


_cached_tail: Final = lru_cache(_CACHE_SIZE)(_parse_tail)
_cached_response_fields: Final = lru_cache(_CACHE_SIZE)(_parse_response_fields)
_cached_request: Final = lru_cache(_CACHE_SIZE)(_parse_request)
_cached_response: Final = lru_cache(_CACHE_SIZE)(_parse_response)


class SortedFields(NamedTuple):
    fields: list[Field]  # end-to-end fields, which are forwarded
    lines_out: list[bytes]  # the same, as lines
    special: list[FieldLine]  # fields with a meaning for the proxy
    framing: HeadFraming


def _sort_fields(block: bytes, special_names: frozenset[bytes], *, is_1_0: bool) -> SortedFields:
    lines = parse_lines(block)
    special = [line for line in lines if line[0] in special_names]
    framing = _head_framing(special, is_1_0=is_1_0)
    dropped = special_names | framing.named if framing.named else special_names
    fields: list[Field] = []
    lines_out: list[bytes] = []
    for name, field, text in lines:
        if name not in dropped:
            fields.append(field)
            lines_out.append(text)
    return SortedFields(fields, lines_out, special, framing)


def _head_framing(special: list[FieldLine], *, is_1_0: bool) -> HeadFraming:
    length: int | None = None
    chunked = False
    named: frozenset[bytes] = _NO_NAMES
    upgrades: list[bytes] = []
    for name, (_, value), _ in special:
        if name == b"connection":
            named |= tokens(value)
        elif name == b"content-length":
            if length is not None or not _LENGTH.fullmatch(value):
                raise MalformedMessage("its Content-Length is not a number, or given twice")
            length = int(value)
        elif name == b"transfer-encoding":
            if chunked or is_1_0 or value.lower() != b"chunked":
                raise MalformedMessage("its Transfer-Encoding is not chunked, or it is HTTP/1.0")
            chunked = True
        elif name == b"upgrade":
            upgrades.append(value)
    if chunked and length is not None:
        raise MalformedMessage("it has both Transfer-Encoding and Content-Length")
    keep_alive = b"close" not in named and (not is_1_0 or b"keep-alive" in named)
    upgrade = upgrades[0] if len(upgrades) == 1 and b"upgrade" in named else b""
    named -= _CONNECTION_OPTIONS
    return HeadFraming(length, chunked, keep_alive, upgrade.lower() or None, named)


def _decrement_max_forwards(
    fields: tuple[Field, ...], lines: bytes
) -> tuple[tuple[Field, ...], bytes]:
    """Decrement Max-Forwards (RFC 9110, 7.6.2). Raises MalformedMessage.

    Of the methods that it applies to, only OPTIONS is forwarded.
    """
    found = [
        (at, value) for at, (name, value) in enumerate(fields) if name.lower() == _MAX_FORWARDS
    ]
    if not found:
        return fields, lines
    at, hops = found[0]
    if len(found) > 1 or not _LENGTH.fullmatch(hops):
        raise MalformedMessage("its Max-Forwards is not a number, or given twice")
    if int(hops) == 0:
        raise MalformedMessage("its Max-Forwards is 0, and this proxy does not answer OPTIONS", 501)
    less = (fields[at][0], b"%d" % (int(hops) - 1))
    fields = (*fields[:at], less, *fields[at + 1 :])
    return fields, written(fields)


def _expects_100(expectation: bytes) -> bool:
    """Check an Expect field: True for 100-continue (RFC 9110, 10.1.1). Raises MalformedMessage."""
    if expectation.lower() != b"100-continue":
        raise MalformedMessage("its Expect is not 100-continue", 417)
    return True


def _is_1_0(version: bytes) -> bool:
    if version == b"HTTP/1.1":
        return False
    if version == b"HTTP/1.0":
        return True
    if _VERSION.fullmatch(version):
        raise MalformedMessage("this proxy supports HTTP/1.1 and HTTP/1.0", 505)
    raise MalformedMessage("its first line is not METHOD TARGET VERSION")


@lru_cache(maxsize=256)
def _parse_status_line(line: bytes) -> tuple[int, bytes, bool]:
    match = _STATUS_LINE.fullmatch(line)
    if not match:
        raise MalformedMessage("it does not begin with an HTTP/1.1 status line")
    reason = match["reason"] or b""
    if not reason.decode("latin-1").isprintable():
        reason = b""
    return int(match["status"]), match["status"] + b" " + reason, match["minor"] == b"0"
