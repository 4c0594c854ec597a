"""Heads of requests and responses: parsed once, strictly, into what the proxy needs.

The hot path. What comes again byte for byte, from the same client or another, is remembered: a
head as a whole, and for other targets a request's from its version on.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

from arke_proxy.errors import MalformedMessage
from arke_proxy.http.header_fields import FORWARDED, HOP_BY_HOP, LOOKALIKE, Field, tokens, written
from arke_proxy.http.messages import RequestHead, ResponseHead
from arke_proxy.http.request_target import METHODS, checked_host, resolve_target
from arke_proxy.http1.field_parser import Line, read_lines
from arke_proxy.http1.serializer import request_begin, response_begin

_ORIGIN: Final = re.compile(rb"/[!-\"$-~]*")  # no fragment
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_STEPS: Final = b"max-forwards"
_VERSION: Final = re.compile(rb"HTTP/[0-9]\.[0-9]")
_STATUS_LINE: Final = re.compile(
    rb"HTTP/1\.(?P<minor>[01]) (?P<status>[1-9][0-9]{2})(?: (?P<reason>[^\r\n\x00]*))?"
)
# What may be spoken past the proxy. No form of HTTP is among it (h2c, HTTP/2.0, TLS/1.0): requests
# inside would reach a backend unseen.
_UPGRADES: Final = frozenset((b"websocket",))
_CONNECTION_OPTIONS: Final = {b"close", b"keep-alive", b"upgrade"}  # which name no field to keep
_ASIDE_IN_RESPONSES: Final = HOP_BY_HOP | {b"content-length"}
_ASIDE_IN_REQUESTS: Final = _ASIDE_IN_RESPONSES | FORWARDED | {b"expect", b"host", LOOKALIKE}
_NOTHING: frozenset[bytes] = frozenset()
_REMEMBERED: Final = 256  # heads of each kind
_MOST_REMEMBERED: Final = 2048  # bytes of one


def parse_request(raw: bytes) -> RequestHead:
    """Read one whole head, its empty line included. Raises MalformedMessage."""
    read = _remembered_request if len(raw) <= _MOST_REMEMBERED else _read_request
    return read(raw)


def parse_translated(raw: bytes, version: bytes) -> RequestHead:
    """Read a head that was written for a request of a later version. Raises MalformedMessage."""
    read = _remembered_request if len(raw) <= _MOST_REMEMBERED else _read_request
    return read(raw, version)


def _read_request(raw: bytes, version: bytes | None = None) -> RequestHead:
    method, _, rest = raw.partition(b" ")
    target, _, tail = rest.partition(b" ")
    read = _remembered_tail if len(tail) <= _MOST_REMEMBERED else _read_tail
    is_1_0, host, fields, lines, (length, chunked, keep_alive, upgrade, _), forwarded = read(tail)
    if method not in METHODS:
        raise MalformedMessage("its method is none that this proxy knows")
    if method == b"CONNECT":
        raise MalformedMessage("this proxy opens no tunnels", 501)
    if method == b"TRACE":  # what comes back would show what this proxy tells backends
        raise MalformedMessage("this proxy sends no request back", 501)
    if method == b"OPTIONS":
        fields, lines = _one_step_less(fields, lines)
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
    """Read one whole head, its empty line included. Raises MalformedMessage.

    Whether a switch of protocols (101) had been asked for, the caller knows.
    """
    read = _remembered_response if len(raw) <= _MOST_REMEMBERED else _read_response
    return read(raw)


def _read_response(raw: bytes) -> ResponseHead:
    line, _, block = raw.partition(b"\r\n")
    status, status_text, is_1_0 = _read_status_line(line)
    read = _remembered_answer if len(block) <= _MOST_REMEMBERED else _read_answer
    fields, lines, dated, (length, chunked, keep_alive, upgrade, _) = read(block, is_1_0)
    if status < 200 and (length is not None or chunked):
        raise MalformedMessage("it has a body, and its status allows none")
    if status == 204 and (length or chunked):
        keep_alive = False  # what follows may be that body, or the next answer
    if status != 101:
        upgrade = None
    elif is_1_0 or upgrade is None:
        raise MalformedMessage("it switches protocols, and does not say to which")
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


class _Framing(NamedTuple):
    length: int | None
    chunked: bool
    keep_alive: bool
    upgrade: bytes | None  # what `Connection` and one `Upgrade` field agree on
    named: frozenset[bytes]  # the fields that `Connection` names


class _Tail(NamedTuple):
    """A request's head from its version on."""

    is_1_0: bool
    host: bytes | None
    fields: tuple[Field, ...]
    lines: bytes
    framing: _Framing
    forwarded: tuple[Field, ...]


def _read_tail(tail: bytes) -> _Tail:
    version, _, block = tail.partition(b"\r\n")
    is_1_0 = _is_1_0(version)
    fields, texts, aside, framing = _sort(block, _ASIDE_IN_REQUESTS, is_1_0=is_1_0)
    length, chunked, _, upgrade, _ = framing
    if upgrade and (is_1_0 or length or chunked or upgrade not in _UPGRADES):
        framing = framing._replace(upgrade=None)
    host: bytes | None = None
    forwarded: list[Field] = []
    for name, (spelling, value), text in aside:
        if name == b"host":
            if host is not None:
                raise MalformedMessage("it has two Host fields")
            host = checked_host(value)
        elif name in FORWARDED:
            forwarded.append((name, value))
        elif name == LOOKALIKE:
            raise MalformedMessage("the name of a field could be taken for another that frames it")
        elif name == b"expect" and _waits_for_100(value) and not is_1_0 and (length or chunked):
            # Where no body waits, some backends would begin to wait for one.
            fields.append((spelling, value))
            texts.append(text)
    return _Tail(is_1_0, host, tuple(fields), b"".join(texts), framing, tuple(forwarded))


def _read_answer(block: bytes, is_1_0: bool) -> tuple[tuple[Field, ...], bytes, bool, _Framing]:
    fields, texts, _, framing = _sort(block, _ASIDE_IN_RESPONSES, is_1_0=is_1_0)
    lines = b"".join(texts)
    dated = b"\ndate:" in b"\n" + lines.lower()
    return tuple(fields), lines, dated, framing


_remembered_tail: Final = lru_cache(_REMEMBERED)(_read_tail)
_remembered_answer: Final = lru_cache(_REMEMBERED)(_read_answer)
_remembered_request: Final = lru_cache(_REMEMBERED)(_read_request)
_remembered_response: Final = lru_cache(_REMEMBERED)(_read_response)


class _Sorted(NamedTuple):
    fields: list[Field]  # end to end
    texts: list[bytes]  # the same, as they are written
    aside: list[Line]
    framing: _Framing


def _sort(block: bytes, aside_names: frozenset[bytes], *, is_1_0: bool) -> _Sorted:
    lines = read_lines(block)
    aside = [line for line in lines if line[0] in aside_names]
    framing = _frame(aside, is_1_0=is_1_0)
    dropped = aside_names | framing.named if framing.named else aside_names
    fields: list[Field] = []
    texts: list[bytes] = []
    for name, field, text in lines:
        if name not in dropped:
            fields.append(field)
            texts.append(text)
    return _Sorted(fields, texts, aside, framing)


def _frame(aside: list[Line], *, is_1_0: bool) -> _Framing:
    length: int | None = None
    chunked = False
    named: frozenset[bytes] = _NOTHING
    upgrades: list[bytes] = []
    for name, (_, value), _ in aside:
        if name == b"connection":
            named |= tokens(value)
        elif name == b"content-length":
            if length is not None or not _LENGTH.fullmatch(value):
                raise MalformedMessage("its length is none, or said twice")
            length = int(value)
        elif name == b"transfer-encoding":
            if chunked or is_1_0 or value.lower() != b"chunked":
                raise MalformedMessage("its transfer coding is not chunked, of HTTP/1.1")
            chunked = True
        elif name == b"upgrade":
            upgrades.append(value)
    if chunked and length is not None:
        raise MalformedMessage("it is chunked, and has a length")
    keep_alive = b"close" not in named and (not is_1_0 or b"keep-alive" in named)
    upgrade = upgrades[0] if len(upgrades) == 1 and b"upgrade" in named else b""
    named -= _CONNECTION_OPTIONS
    return _Framing(length, chunked, keep_alive, upgrade.lower() or None, named)


def _one_step_less(fields: tuple[Field, ...], lines: bytes) -> tuple[tuple[Field, ...], bytes]:
    """Decrement Max-Forwards (RFC 9110, 7.6.2). Raises MalformedMessage.

    Of the methods that it applies to, only OPTIONS is forwarded.
    """
    said = [(at, value) for at, (name, value) in enumerate(fields) if name.lower() == _STEPS]
    if not said:
        return fields, lines
    at, steps = said[0]
    if len(said) > 1 or not _LENGTH.fullmatch(steps):
        raise MalformedMessage("its Max-Forwards is not a number, or given twice")
    if int(steps) == 0:
        raise MalformedMessage(
            "it may go no further, and this proxy has no options of its own", 501
        )
    less = (fields[at][0], b"%d" % (int(steps) - 1))
    fields = (*fields[:at], less, *fields[at + 1 :])
    return fields, written(fields)


def _waits_for_100(expectation: bytes) -> bool:
    """Say that the client waits for an answer 100 (RFC 9110, 10.1.1). Raises MalformedMessage."""
    if expectation.lower() != b"100-continue":
        raise MalformedMessage("it expects what this proxy does not know", 417)
    return True


def _is_1_0(version: bytes) -> bool:
    if version == b"HTTP/1.1":
        return False
    if version == b"HTTP/1.0":
        return True
    if _VERSION.fullmatch(version):
        raise MalformedMessage("this proxy speaks HTTP/1.1 and HTTP/1.0", 505)
    raise MalformedMessage("its first line is not METHOD TARGET VERSION")


@lru_cache(maxsize=256)
def _read_status_line(line: bytes) -> tuple[int, bytes, bool]:
    match = _STATUS_LINE.fullmatch(line)
    if not match:
        raise MalformedMessage("it does not begin with an HTTP/1.1 status line")
    reason = match["reason"] or b""
    if not reason.decode("latin-1").isprintable():
        reason = b""
    return int(match["status"]), match["status"] + b" " + reason, match["minor"] == b"0"
