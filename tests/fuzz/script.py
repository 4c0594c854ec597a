"""The format of an input: bytes for the codec, with events between them.

The byte 0xC1, which MessagePack never uses, is followed by the number of an event. All other bytes
go to the codec unchanged. Each event also ends a read, so that streams are cut at arbitrary places.
"""

from __future__ import annotations

from collections.abc import Iterator

from arke.wire.limits import CHUNK

MARK = 0xC1
CUT = 0x00
"""A read ends here; nothing else happens."""
LITERAL = 0x01
"""The byte 0xC1 itself."""
SINGLY = 0x02
"""The bytes before it arrive one by one."""
REPEAT = (0x03, 0x04, 0x05)
"""The bytes before it are sent again: 15, 255 or 4,095 times."""

_MAX_REPEATED_BYTES = 512 * 1024  # of one repetition
_MAX_SINGLE_BYTES = 1024
_MAX_EVENTS = 128


def event(number: int) -> bytes:
    return bytes((MARK, number))


def steps(data: bytes) -> Iterator[tuple[list[bytes], int]]:
    """Yield the reads of each part, and the number of the event after them."""
    first, *rest = data.split(bytes((MARK,)), _MAX_EVENTS)
    data = first
    for part in rest:
        number = part[0] if part else CUT
        if number == LITERAL:
            data += bytes((MARK,)) + part[1:]
            continue
        yield _reads(data, number), number
        data = part[1:]
    yield _reads(data, CUT), CUT


def _reads(data: bytes, number: int) -> list[bytes]:
    if not data:
        return []
    if number == SINGLY:
        cut = data[:_MAX_SINGLE_BYTES]
        return [bytes((byte,)) for byte in cut] + [data[_MAX_SINGLE_BYTES:]][: len(data) > len(cut)]
    if number in REPEAT:
        times = min(16 ** (REPEAT.index(number) + 1), _MAX_REPEATED_BYTES // len(data) + 1)
        at_once = max(1, CHUNK // len(data))
        return [data * min(at_once, times - at) for at in range(0, times, at_once)]
    return [data]
