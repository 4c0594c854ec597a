"""Encode and decode the five messages of a join. `join_handshake` has their sequence."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from functools import partial
from typing import Any

import msgpack

from arke.program.printable import printable
from arke_relay.errors import JoinRefused, RefusalCode
from arke_relay.peers.certificate import NONCE_BYTES
from arke_relay.peers.validation import is_binary, is_integer, is_text, unpack

VERSION = 1
MAX_MESSAGE_BYTES = 8 * 1024
MAX_REFUSAL_TEXT = 200
"""Characters."""

_MAX_CODE = 2**16 - 1


class JoinMessageKind(IntEnum):
    """The first field of a message."""

    HELLO = 1
    CHALLENGE = 2
    PROOF = 3
    WELCOME = 4
    REFUSED = 5


def pack(kind: JoinMessageKind, *fields: object) -> bytes:
    """Encode one message."""
    return bytes(msgpack.packb([kind.value, *fields]))


def pack_refusal(refusal: JoinRefused) -> bytes:
    """Encode a REFUSED message. A long text is cut."""
    text = printable(refusal.text)[:MAX_REFUSAL_TEXT]
    return pack(JoinMessageKind.REFUSED, refusal.code.value, text)


def unpack_as(awaited: JoinMessageKind, message: bytes) -> list[Any]:
    """Return the fields of `message`, each of the type that the awaited kind prescribes.

    The caller still has to check certificates and node infos inside. Raises `JoinRefused` for
    REFUSED, and for anything but a well-formed message of the awaited kind.
    """
    kind: object
    fields: list[Any]
    try:
        kind, *fields = unpack(message, limit=MAX_MESSAGE_BYTES)
    except (ValueError, TypeError) as error:
        raise JoinRefused(RefusalCode.MALFORMED_MESSAGE, "malformed message") from error
    # Check the version first: messages of another version may have other fields.
    if awaited in _VERSIONED and kind == awaited and fields and fields[0] != VERSION:
        raise JoinRefused(
            RefusalCode.UNSUPPORTED_VERSION, f"only version {VERSION} of the join is supported"
        )
    if awaited in _REFUSABLE and _matches(JoinMessageKind.REFUSED, kind, fields):
        raise JoinRefused(_known_code(fields[0]), printable(fields[1]), by_peer=True)
    if not _matches(awaited, kind, fields):
        known = type(kind) is int and kind in _SHAPES and kind != awaited
        raise JoinRefused(
            RefusalCode.UNEXPECTED_MESSAGE if known else RefusalCode.MALFORMED_MESSAGE,
            f"malformed or unexpected message instead of {awaited.name}",
        )
    return fields


def _known_code(number: int) -> RefusalCode:
    try:
        return RefusalCode(number)
    except ValueError:
        return RefusalCode.UNKNOWN


def _matches(wanted: JoinMessageKind, kind: object, fields: list[Any]) -> bool:
    shape = _SHAPES[wanted]
    return (
        type(kind) is int
        and kind == wanted
        and len(fields) == len(shape)
        and all(accepts(value) for accepts, value in zip(shape, fields, strict=True))
    )


def _is_version(value: object) -> bool:
    return is_integer(value, VERSION, VERSION)


def _is_nonce(value: object) -> bool:
    return is_binary(value, NONCE_BYTES)


def _is_sealed(value: object) -> bool:
    return type(value) is bytes


def _is_node_info(value: object) -> bool:
    return type(value) is list


_is_code: Callable[[object], bool] = partial(is_integer, minimum=0, maximum=_MAX_CODE)
_is_refusal_text: Callable[[object], bool] = partial(
    is_text, minimum=0, maximum=4 * MAX_REFUSAL_TEXT
)

_SHAPES: dict[JoinMessageKind, tuple[Callable[[object], bool], ...]] = {
    JoinMessageKind.HELLO: (_is_version, _is_nonce),
    JoinMessageKind.CHALLENGE: (_is_version, _is_nonce, _is_sealed),
    JoinMessageKind.PROOF: (_is_sealed, _is_node_info),
    JoinMessageKind.WELCOME: (_is_node_info,),
    JoinMessageKind.REFUSED: (_is_code, _is_refusal_text),
}
_VERSIONED = {JoinMessageKind.HELLO, JoinMessageKind.CHALLENGE}
_REFUSABLE = {JoinMessageKind.CHALLENGE, JoinMessageKind.WELCOME}
"""What a responder sends, or REFUSED instead. An initiator never sends REFUSED."""
