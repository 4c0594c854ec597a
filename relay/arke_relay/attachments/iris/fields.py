"""Read and write the fields of Iris packets.

Each reader takes the received bytes and the offset of a field. It returns the field and the offset
of the next one. All raise Incomplete if more bytes must arrive first, and Malformed.
"""

from __future__ import annotations

from arke.wire.limits import MAX_NAME, check_name
from arke.wire.malformed import Malformed

_MAX_VARINT_BYTES = 10
_VARINT_END = 2**64


class Incomplete(Exception):
    """The packet continues: it cannot be read before `needed` bytes have arrived."""

    def __init__(self, needed: int) -> None:
        self.needed = needed


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    try:
        byte = data[at]
        if byte < 0x80:
            return byte, at + 1
        value, shift, start = byte & 0x7F, 7, at
        while True:
            at += 1
            if at - start == _MAX_VARINT_BYTES:
                raise Malformed(f"a varint of more than {_MAX_VARINT_BYTES} bytes")
            byte = data[at]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
    except IndexError:
        raise Incomplete(at + 1) from None
    if value >= _VARINT_END:
        raise Malformed("a varint of more than 64 bits")
    return value, at + 1


def read_binary(data: bytes, at: int, limit: int) -> tuple[bytes, int]:
    """Read a length and as many bytes, at most `limit`."""
    length, at = read_varint(data, at)
    if length > limit:
        raise Malformed(f"a field of {length} bytes exceeds the limit of {limit}")
    end = at + length
    if end > len(data):
        raise Incomplete(end)
    return data[at:end], end


def read_text(data: bytes, at: int, limit: int) -> tuple[str, int]:
    """Read a binary field as UTF-8."""
    encoded, at = read_binary(data, at, limit)
    try:
        return encoded.decode(), at
    except UnicodeDecodeError:
        raise Malformed("a text that is not UTF-8") from None


def read_name(data: bytes, at: int) -> tuple[str, int]:
    """Read the name of a cluster or topic."""
    value, at = read_text(data, at, MAX_NAME)
    return check_name(value), at


def read_flag(data: bytes, at: int) -> tuple[bool, int]:
    try:
        byte = data[at]
    except IndexError:
        raise Incomplete(at + 1) from None
    if byte > 1:
        raise Malformed("a flag must be 0 or 1")
    return byte == 1, at + 1


_ONE_BYTE = [bytes((value,)) for value in range(0x80)]


def to_varint(value: int) -> bytes:
    if value < 0x80:
        return _ONE_BYTE[value]
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def to_binary(data: bytes) -> bytes:
    return to_varint(len(data)) + data


def to_text(value: str) -> bytes:
    return to_binary(value.encode(errors="replace"))
