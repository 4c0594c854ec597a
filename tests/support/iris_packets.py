"""Packets of the Iris relay protocol, written down from its description alone, for both directions.

A packet is a tuple: the operation, and its fields in order. What may be missing or of two kinds is
one field: None is "timed out", bytes an answer, text a fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import IntEnum
from typing import Any, NamedTuple

VERSION = "v1.0-draft2"
CLIENT_MAGIC = "iris-client-magic"
RELAY_MAGIC = "iris-relay-magic"

LONGEST_VARINT = 10
"""Octets."""


class Op(IntEnum):
    """The first octet. The first two are the handshake's."""

    INIT = 0x00
    DENY = 0x01
    CLOSE = 0x02
    BROADCAST = 0x03
    REQUEST = 0x04
    REPLY = 0x05
    SUBSCRIBE = 0x06
    UNSUBSCRIBE = 0x07
    PUBLISH = 0x08
    TUNNEL_INIT = 0x09
    TUNNEL_CONFIRM = 0x0A
    TUNNEL_ALLOWANCE = 0x0B
    TUNNEL_TRANSFER = 0x0C
    TUNNEL_CLOSE = 0x0D


Packet = tuple[Any, ...]


class Broken(Exception):
    """The other end does not keep to the protocol."""


class _Incomplete(Exception):
    """The packet goes on in octets that have not come yet."""


class _Octets:
    """What has come, and how far it has been read."""

    def __init__(self) -> None:
        self.held = bytearray()
        self.at = 0

    def take(self, size: int) -> bytes:
        end = self.at + size
        if end > len(self.held):
            raise _Incomplete
        taken = bytes(memoryview(self.held)[self.at : end])
        self.at = end
        return taken


class Kind(NamedTuple):
    """How one field is written and read."""

    write: Callable[[Any], bytes]
    read: Callable[[_Octets], Any]


def _write_varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def _read_varint(octets: _Octets) -> int:
    value = 0
    for place in range(LONGEST_VARINT):
        octet = octets.take(1)[0]
        value |= (octet & 0x7F) << 7 * place
        if octet < 0x80:
            return value
    raise Broken(f"a varint of more than {LONGEST_VARINT} octets")


def _write_bool(value: bool) -> bytes:
    return b"\x01" if value else b"\x00"


def _read_bool(octets: _Octets) -> bool:
    octet = octets.take(1)[0]
    if octet > 1:
        raise Broken(f"a bool of {octet}")
    return octet == 1


def _write_binary(value: bytes) -> bytes:
    return _write_varint(len(value)) + value


def _read_binary(octets: _Octets) -> bytes:
    return octets.take(_read_varint(octets))


def _write_string(value: str) -> bytes:
    return _write_binary(value.encode())


def _read_string(octets: _Octets) -> str:
    try:
        return _read_binary(octets).decode()
    except UnicodeDecodeError:
        raise Broken("a string that is not UTF-8") from None


def _write_outcome(value: bytes | str) -> bytes:
    if isinstance(value, bytes):
        return _write_bool(True) + _write_binary(value)
    return _write_bool(False) + _write_string(value)


def _read_outcome(octets: _Octets) -> bytes | str:
    return _read_binary(octets) if _read_bool(octets) else _read_string(octets)


def _in_time(kind: Kind) -> Kind:
    """That field, unless the time ran out."""

    def write(value: Any) -> bytes:
        return _write_bool(True) if value is None else _write_bool(False) + kind.write(value)

    def read(octets: _Octets) -> Any:
        return None if _read_bool(octets) else kind.read(octets)

    return Kind(write, read)


VARINT = Kind(_write_varint, _read_varint)
BOOL = Kind(_write_bool, _read_bool)
BINARY = Kind(_write_binary, _read_binary)
STRING = Kind(_write_string, _read_string)
OUTCOME = Kind(_write_outcome, _read_outcome)

Layout = Mapping[int, tuple[Kind, ...]]

TO_RELAY: Layout = {
    Op.INIT: (STRING, STRING, STRING),
    Op.CLOSE: (),
    Op.BROADCAST: (STRING, BINARY),
    Op.REQUEST: (VARINT, STRING, BINARY, VARINT),
    Op.REPLY: (VARINT, OUTCOME),
    Op.SUBSCRIBE: (STRING,),
    Op.UNSUBSCRIBE: (STRING,),
    Op.PUBLISH: (STRING, BINARY),
    Op.TUNNEL_INIT: (VARINT, STRING, VARINT),
    Op.TUNNEL_CONFIRM: (VARINT, VARINT),
    Op.TUNNEL_ALLOWANCE: (VARINT, VARINT),
    Op.TUNNEL_TRANSFER: (VARINT, VARINT, BINARY),
    Op.TUNNEL_CLOSE: (VARINT,),
}
FROM_RELAY: Layout = {
    Op.INIT: (STRING, STRING),
    Op.DENY: (STRING, STRING),
    Op.CLOSE: (STRING,),
    Op.BROADCAST: (BINARY,),
    Op.REQUEST: (VARINT, BINARY, VARINT),
    Op.REPLY: (VARINT, _in_time(OUTCOME)),
    Op.PUBLISH: (STRING, BINARY),
    Op.TUNNEL_INIT: (VARINT, VARINT),
    Op.TUNNEL_CONFIRM: (VARINT, _in_time(VARINT)),
    Op.TUNNEL_ALLOWANCE: (VARINT, VARINT),
    Op.TUNNEL_TRANSFER: (VARINT, VARINT, BINARY),
    Op.TUNNEL_CLOSE: (VARINT, STRING),
}


def encoded(op: int, *fields: Any, layout: Layout = TO_RELAY) -> bytes:
    kinds = layout[op]
    written = (kind.write(field) for kind, field in zip(kinds, fields, strict=True))
    return bytes([op]) + b"".join(written)


class Decoder:
    """Cuts a stream into packets, wherever its pieces end."""

    def __init__(self, layout: Layout = FROM_RELAY) -> None:
        self._layout = layout
        self._octets = _Octets()

    def feed(self, data: bytes) -> None:
        self._octets.held += data

    def __iter__(self) -> Iterator[Packet]:
        """Yield what is complete. Raises Broken."""
        octets = self._octets
        while octets.held:
            octets.at = 0
            try:
                packet = self._packet()
            except _Incomplete:
                return
            del octets.held[: octets.at]
            yield packet

    @property
    def rest(self) -> bytes:
        """The packet that is not complete."""
        return bytes(self._octets.held)

    def _packet(self) -> Packet:
        op = self._octets.take(1)[0]
        if op not in self._layout:
            raise Broken(f"an unknown operation: {op}")
        return (Op(op), *(kind.read(self._octets) for kind in self._layout[op]))
