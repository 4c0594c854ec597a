"""The first message of a native program."""

from __future__ import annotations

from typing import NamedTuple

from arke.wire.limits import MAX_IDENTITY
from arke.wire.malformed import Malformed
from arke.wire.messages import MAGIC, VERSION
from arke_relay.attachments.detach_reason import UnsupportedVersion
from arke_relay.core.endpoints import Message

_MAX_NAME = 200


class NativeHello(NamedTuple):
    name: str
    """The program's own name, for logs."""
    identity: bytes
    """Identifies the program when it attaches again; empty: it sent none."""


def read_hello(message: Message) -> NativeHello:
    """Check a HELLO. Raises Malformed and UnsupportedVersion."""
    _, magic, version, name = message[:4]
    if magic != MAGIC or type(name) is not str:
        raise Malformed("the first message is not a HELLO of an Arke program")
    if type(version) is not int:
        raise Malformed("a version must be a number")
    if version != VERSION:
        raise UnsupportedVersion(
            f"this relay speaks version {VERSION} of the protocol (the program: {version})"
        )
    identity = _check_identity(message[4]) if len(message) > 4 else b""
    return NativeHello(name[:_MAX_NAME], identity)


def _check_identity(value: object) -> bytes:
    if type(value) is not bytes or not 0 < len(value) <= MAX_IDENTITY:
        raise Malformed(f"an identity must be 1 to {MAX_IDENTITY} bytes")
    return value
