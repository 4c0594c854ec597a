"""Check the fields of each message that a relay sends to a program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from arke.wire.limits import MAX_HEADERS, MAX_MAP_ENTRIES, MAX_METADATA, is_name
from arke.wire.messages import Failure, Op, Purpose, TunnelClose

Check = Callable[[Any], bool]


def _integer(value: Any) -> bool:
    return type(value) is int


def _size(value: Any) -> bool:
    return type(value) is int and value >= 0


def _text(value: Any) -> bool:
    return type(value) is str


def _bytes(value: Any) -> bool:
    return type(value) is bytes


def _body(value: Any) -> bool:
    return type(value) in {bytes, int}


def _fanout_body(value: Any) -> bool:
    return type(value) in {bytes, int} or (
        type(value) is tuple and all(type(each) is bytes for each in value)
    )


def _map_of(most: int) -> Check:
    def check(value: Any) -> bool:
        if type(value) is not dict or len(value) > MAX_MAP_ENTRIES:
            return False
        texts = [*value, *value.values()]
        return all(map(_text, texts)) and sum(len(text.encode()) for text in texts) <= most

    return check


def _or_nil(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _one_of(values: type[TunnelClose | Failure | Purpose]) -> Check:
    return lambda value: type(value) is int and value in set(values)


_HEADERS = _or_nil(_map_of(MAX_HEADERS))
_METADATA = _map_of(MAX_METADATA)

FIELD_CHECKS: dict[int, tuple[Check, ...]] = {
    Op.WELCOME: (_integer, _text, _text, _text, _size),
    Op.PING: (_integer,),
    Op.PONG: (_integer,),
    Op.CLOSE: (_text,),
    Op.CHUNK: (_integer, _size, _bytes),
    Op.DELIVER_REQUEST: (_integer, _body, _size, _integer, _text, _HEADERS),
    Op.DELIVER_BROADCAST: (_fanout_body, _text, _HEADERS),
    Op.DELIVER_EVENT: (is_name, _fanout_body, _text, _HEADERS),
    Op.NODE_ADDRESS: (_text,),
    Op.MEMBER_JOINED: (is_name, _text, _text, _METADATA),
    Op.MEMBER_LEFT: (is_name, _text),
    Op.MEMBERS_LISTED: (is_name,),
    Op.REQUEST_CANCELLED: (_integer,),
    Op.DRAINING: (_integer, _text),
    Op.REPLY: (_integer, _body),
    Op.FAULT: (_integer, _text, _text),
    Op.FAILED: (_integer, _one_of(Failure), _text),
    Op.OFFER: (
        _integer,
        _body,
        _size,
        _integer,
        _one_of(Purpose),
        lambda window: _size(window) and window >= 64 * 1024,
        _size,
        _text,
        _HEADERS,
    ),
    Op.ACCEPT: (_integer, lambda window: _size(window) and window >= 64 * 1024, _size),
    Op.DATA: (_integer, _or_nil(_size), lambda data: _bytes(data) and len(data) > 0),
    Op.CREDIT: (_integer, _size),
    Op.END: (_integer, _one_of(TunnelClose), _text, _text),
}


def is_valid(message: Any) -> bool:
    """Whether the message has a known operation and valid fields."""
    if type(message) is not tuple or not message or message[0] not in FIELD_CHECKS:
        return False
    checks = FIELD_CHECKS[message[0]]
    return len(message) == len(checks) + 1 and all(
        check(field) for check, field in zip(checks, message[1:], strict=True)
    )
