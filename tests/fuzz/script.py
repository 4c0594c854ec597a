"""What an input says: octets for the codec, and between them what else happens in the world.

0xC1, which MessagePack never uses, is followed by the number of an event; all other octets go to
the codec as they are. Each event also ends a read, so that streams are cut at arbitrary places.
"""

from __future__ import annotations

from collections.abc import Iterator

from arke.wire.limits import CHUNK

MARK = 0xC1
CUT = 0x00
"""Nothing happens but that a read ends here."""
LITERAL = 0x01
"""The octet 0xC1 itself."""
SINGLY = 0x02
"""What stands before it is read octet by octet."""
REPEAT = (0x03, 0x04, 0x05)
"""What stands before it is sent again: 15, 255, 4,095 times."""

_MOST_OCTETS = 512 * 1024  # of one repetition
_MOST_SINGLE = 1024
_MOST_EVENTS = 128


def event(number: int) -> bytes:
    return bytes((MARK, number))


def steps(data: bytes) -> Iterator[tuple[list[bytes], int]]:
    """Reads, and the event behind them."""
    first, *rest = data.split(bytes((MARK,)), _MOST_EVENTS)
    octets = first
    for part in rest:
        number = part[0] if part else CUT
        if number == LITERAL:
            octets += bytes((MARK,)) + part[1:]
            continue
        yield _reads(octets, number), number
        octets = part[1:]
    yield _reads(octets, CUT), CUT


def _reads(octets: bytes, number: int) -> list[bytes]:
    if not octets:
        return []
    if number == SINGLY:
        cut = octets[:_MOST_SINGLE]
        return [bytes((octet,)) for octet in cut] + [octets[_MOST_SINGLE:]][
            : len(octets) > len(cut)
        ]
    if number in REPEAT:
        times = min(16 ** (REPEAT.index(number) + 1), _MOST_OCTETS // len(octets) + 1)
        at_once = max(1, CHUNK // len(octets))
        return [octets * min(at_once, times - at) for at in range(0, times, at_once)]
    return [octets]
