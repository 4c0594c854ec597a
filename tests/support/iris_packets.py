"""Encode and decode packets of the Iris relay protocol, written from its specification alone.

A packet is a tuple of the operation and its fields. The outcome of a request is one field: None
means that it timed out, bytes are a reply, text is a fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import IntEnum
from typing import Any, NamedTuple

VERSION = "v1.0-draft2"
CLIENT_MAGIC = "iris-client-magic"
RELAY_MAGIC = "iris-relay-magic"

MAX_VARINT_BYTES = 10


class Op(IntEnum):
    """The first byte of a packet. The first two operations belong to the handshake."""

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


class ProtocolViolation(Exception):
    """The other end violates the protocol."""


class _Incomplete(Exception):
    """The rest of the packet has not arrived yet."""


class _Buffer:
    """Received bytes, and the read position."""

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
    """A type of field: how to write and read it."""

    write: Callable[[Any], bytes]
    read: Callable[[_Buffer], Any]


def _write_varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def _read_varint(data: _Buffer) -> int:
    value = 0
    for place in range(MAX_VARINT_BYTES):
        byte = data.take(1)[0]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value
    raise ProtocolViolation(f"a varint of more than {MAX_VARINT_BYTES} data")


def _write_bool(value: bool) -> bytes:
    return b"\x01" if value else b"\x00"


def _read_bool(data: _Buffer) -> bool:
    byte = data.take(1)[0]
    if byte > 1:
        raise ProtocolViolation(f"a bool of {byte}")
    return byte == 1


def _write_binary(value: bytes) -> bytes:
    return _write_varint(len(value)) + value


def _read_binary(data: _Buffer) -> bytes:
    return data.take(_read_varint(data))


def _write_string(value: str) -> bytes:
    return _write_binary(value.encode())


def _read_string(data: _Buffer) -> str:
    try:
        return _read_binary(data).decode()
    except UnicodeDecodeError:
        raise ProtocolViolation("a string that is not UTF-8") from None


def _write_outcome(value: bytes | str) -> bytes:
    if isinstance(value, bytes):
        return _write_bool(True) + _write_binary(value)
    return _write_bool(False) + _write_string(value)


def _read_outcome(data: _Buffer) -> bytes | str:
    return _read_binary(data) if _read_bool(data) else _read_string(data)


def _unless_timed_out(kind: Kind) -> Kind:
    """A field that is missing after a time-out."""

    def write(value: Any) -> bytes:
        return _write_bool(True) if value is None else _write_bool(False) + kind.write(value)

    def read(data: _Buffer) -> Any:
        return None if _read_bool(data) else kind.read(data)

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
    Op.REPLY: (VARINT, _unless_timed_out(OUTCOME)),
    Op.PUBLISH: (STRING, BINARY),
    Op.TUNNEL_INIT: (VARINT, VARINT),
    Op.TUNNEL_CONFIRM: (VARINT, _unless_timed_out(VARINT)),
    Op.TUNNEL_ALLOWANCE: (VARINT, VARINT),
    Op.TUNNEL_TRANSFER: (VARINT, VARINT, BINARY),
    Op.TUNNEL_CLOSE: (VARINT, STRING),
}


def encoded(op: int, *fields: Any, layout: Layout = TO_RELAY) -> bytes:
    kinds = layout[op]
    written = (kind.write(field) for kind, field in zip(kinds, fields, strict=True))
    return bytes([op]) + b"".join(written)


class Decoder:
    """Split a stream into packets."""

    def __init__(self, layout: Layout = FROM_RELAY) -> None:
        self._layout = layout
        self._bytes = _Buffer()

    def feed(self, data: bytes) -> None:
        self._bytes.held += data

    def __iter__(self) -> Iterator[Packet]:
        """Yield complete packets. Raises ProtocolViolation."""
        data = self._bytes
        while data.held:
            data.at = 0
            try:
                packet = self._packet()
            except _Incomplete:
                return
            del data.held[: data.at]
            yield packet

    @property
    def rest(self) -> bytes:
        """The bytes of the incomplete packet."""
        return bytes(self._bytes.held)

    def _packet(self) -> Packet:
        op = self._bytes.take(1)[0]
        if op not in self._layout:
            raise ProtocolViolation(f"an unknown operation: {op}")
        return (Op(op), *(kind.read(self._bytes) for kind in self._layout[op]))
