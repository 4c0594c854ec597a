"""The fields of an Iris packet, read where they stand, and written.

Every reader takes the octets and where the field begins, and returns it with where the next one
begins. All raise Unfinished where more octets must come first, and Malformed for what no field is.
"""

from __future__ import annotations

from arke.wire.limits import MAX_NAME, check_name
from arke.wire.malformed import Malformed

_LONGEST_VARINT = 10
_LARGEST = 2**64


class Unfinished(Exception):
    """The packet goes on: `needed` is how many octets must be there before it is worth a look."""

    def __init__(self, needed: int) -> None:
        self.needed = needed


def varint(data: bytes, at: int) -> tuple[int, int]:
    try:
        octet = data[at]
        if octet < 0x80:
            return octet, at + 1
        value, shift, began = octet & 0x7F, 7, at
        while True:
            at += 1
            if at - began == _LONGEST_VARINT:
                raise Malformed("a varint of more than ten octets")
            octet = data[at]
            value |= (octet & 0x7F) << shift
            if octet < 0x80:
                break
            shift += 7
    except IndexError:
        raise Unfinished(at + 1) from None
    if value >= _LARGEST:
        raise Malformed("a varint of more than 64 bits")
    return value, at + 1


def binary(data: bytes, at: int, most: int) -> tuple[bytes, int]:
    """Octets behind their number, which is `most` at most."""
    length, at = varint(data, at)
    if length > most:
        raise Malformed(f"a field of {length} bytes is over the limit of {most}")
    end = at + length
    if end > len(data):
        raise Unfinished(end)
    return data[at:end], end


def text(data: bytes, at: int, most: int) -> tuple[str, int]:
    """The same as UTF-8."""
    octets, at = binary(data, at, most)
    try:
        return octets.decode(), at
    except UnicodeDecodeError:
        raise Malformed("a text that is not UTF-8") from None


def name(data: bytes, at: int) -> tuple[str, int]:
    """What a cluster or a topic can be called."""
    value, at = text(data, at, MAX_NAME)
    return check_name(value), at


def flag(data: bytes, at: int) -> tuple[bool, int]:
    try:
        octet = data[at]
    except IndexError:
        raise Unfinished(at + 1) from None
    if octet > 1:
        raise Malformed("a flag is 0 or 1")
    return octet == 1, at + 1


_SMALL = [bytes((value,)) for value in range(0x80)]


def to_varint(value: int) -> bytes:
    if value < 0x80:
        return _SMALL[value]
    octets = bytearray()
    while value >= 0x80:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)


def to_binary(octets: bytes) -> bytes:
    return to_varint(len(octets)) + octets


def to_text(value: str) -> bytes:
    return to_binary(value.encode(errors="replace"))
