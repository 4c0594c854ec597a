"""The five messages of a join, as bytes and as fields. `handshake` says who sends which when."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from functools import partial
from typing import Any

import msgpack

from arke_relay.errors import JoinRefused
from arke_relay.peers.certificate import NONCE_BYTES
from arke_relay.peers.validation import is_binary, is_integer, is_text, printable, unpack

VERSION = 1
MESSAGE_BYTES = 8 * 1024
REASON_LENGTH = 200


class Kind(IntEnum):
    HELLO = 1
    CHALLENGE = 2
    PROOF = 3
    WELCOME = 4
    REFUSED = 5


def pack(kind: Kind, *fields: object) -> bytes:
    return bytes(msgpack.packb([kind.value, *fields]))


def refused(reason: str) -> bytes:
    """Return the REFUSED message, with as much of `reason` as it takes."""
    return pack(Kind.REFUSED, printable(reason)[:REASON_LENGTH])


def unpack_as(awaited: Kind, message: bytes) -> list[Any]:
    """Return the fields of `message`, each of the type its kind has.

    Certificates and introductions inside are still to be looked at. Raises `JoinRefused` for
    anything but a well-formed message of the awaited kind.
    """
    kind: object
    fields: list[Any]
    try:
        kind, *fields = unpack(message, limit=MESSAGE_BYTES)
    except (ValueError, TypeError) as error:
        raise JoinRefused("a malformed message") from error
    # Before the shape: another version may well have another one.
    if awaited in _VERSIONED and kind == awaited and fields and fields[0] != VERSION:
        raise JoinRefused(f"another version of the join than {VERSION}")
    if awaited in _REFUSABLE and _fits(Kind.REFUSED, kind, fields):
        raise JoinRefused(f"refused by the other relay: {printable(fields[0])}")
    if not _fits(awaited, kind, fields):
        raise JoinRefused(f"a malformed or unexpected message instead of {awaited.name}")
    return fields


def _fits(wanted: Kind, kind: object, fields: list[Any]) -> bool:
    shape = _SHAPES[wanted]
    return (
        type(kind) is int
        and kind == wanted
        and len(fields) == len(shape)
        and all(holds(value) for holds, value in zip(shape, fields, strict=True))
    )


def _is_version(value: object) -> bool:
    return is_integer(value, VERSION, VERSION)


def _is_nonce(value: object) -> bool:
    return is_binary(value, NONCE_BYTES)


def _is_sealed(value: object) -> bool:
    return type(value) is bytes


def _is_introduction(value: object) -> bool:
    return type(value) is list


_is_reason: Callable[[object], bool] = partial(is_text, least=0, most=4 * REASON_LENGTH)

_SHAPES: dict[Kind, tuple[Callable[[object], bool], ...]] = {
    Kind.HELLO: (_is_version, _is_nonce),
    Kind.CHALLENGE: (_is_version, _is_nonce, _is_sealed),
    Kind.PROOF: (_is_sealed, _is_introduction),
    Kind.WELCOME: (_is_introduction,),
    Kind.REFUSED: (_is_reason,),
}
_VERSIONED = {Kind.HELLO, Kind.CHALLENGE}
_REFUSABLE = {Kind.CHALLENGE, Kind.WELCOME}  # a responder answers with these, or refuses
