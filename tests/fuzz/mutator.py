"""Mutate an input by whole messages and events; mutations of single bytes rarely stay valid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from msgpack import Packer, Unpacker, packb

from arke.wire.malformed import DECODE_ERRORS
from fuzz.grammar import anything
from fuzz.script import CUT, LITERAL, MARK, REPEAT, SINGLY, event


class Mutator:
    """Mutator for streams of MessagePack messages. `generate` makes one, valid or nearly valid."""

    def __init__(self, generate: Callable[[Random], Any], events: Sequence[int]) -> None:
        self._generate = generate
        self._events = (*events, CUT, CUT, SINGLY, *REPEAT)

    def __call__(self, data: bytes, random: Random) -> bytes:
        parts = split(data)
        for _ in range(random.randrange(1, 4)):
            at = random.randrange(len(parts) + 1)
            choice = random.random()
            if choice < 0.5 or not parts:
                parts.insert(at, self._generated(random))
            elif choice < 0.65:
                del parts[at - 1]
            elif choice < 0.75:
                parts.insert(at, random.choice(parts))
            elif choice < 0.85:
                other = random.randrange(len(parts))
                parts[at - 1], parts[other] = parts[other], parts[at - 1]
            else:
                parts[at - 1] = self._changed(parts[at - 1], random)
        return b"".join(parts)

    def _generated(self, random: Random) -> bytes:
        """Generate a message, or sometimes an event."""
        if random.random() < 0.3:
            return event(random.choice(self._events))
        return pack(self._generate(random))

    def _changed(self, part: bytes, random: Random) -> bytes:
        """Replace one field of a message."""
        message = _read(part)
        if not isinstance(message, list) or len(message) < 2:
            return self._generated(random)
        at = random.randrange(1, len(message))
        donor = self._generate(random)
        if isinstance(donor, list) and len(donor) > 1 and random.random() < 0.6:
            message[at] = random.choice(donor[1:])
        else:
            message[at] = anything(random)
        return pack(message)


class Blocks:
    """Mutator for inputs whose parts end with an event. `generate` makes one part."""

    def __init__(self, generate: Callable[[Random], bytes]) -> None:
        self._generate = generate

    def __call__(self, data: bytes, random: Random) -> bytes:
        parts = _blocks(data)
        for _ in range(random.randrange(1, 4)):
            at = random.randrange(len(parts) + 1)
            choice = random.random()
            if choice < 0.45 or not parts:
                parts.insert(at, self._generate(random))
            elif choice < 0.6:
                del parts[at - 1]
            elif choice < 0.7:
                parts.insert(at, random.choice(parts))
            else:
                data = bytearray(parts[at - 1])
                data[random.randrange(len(data))] = random.randrange(256)
                parts[at - 1] = bytes(data)
        return b"".join(parts)


def _blocks(data: bytes) -> list[bytes]:
    parts = [b""]
    at = 0
    while at < len(data):
        end = data.find(MARK, at)
        if end < 0:
            parts[-1] += data[at:]
            break
        parts[-1] += data[at : end + 2]
        at = end + 2
        if data[end + 1 : at] != bytes((LITERAL,)):
            parts.append(b"")
    return [part for part in parts if part]


def pack(message: object) -> bytes:
    """Pack a message for a script, also one that is nested deeper than the library packs."""
    return escaped(_packed(message))


def _packed(value: object) -> bytes:
    try:
        return bytes(packb(value))
    except ValueError:  # nested too deeply
        if not isinstance(value, list):
            return bytes(packb(None))
        return Packer().pack_array_header(len(value)) + b"".join(map(_packed, value))


def split(data: bytes) -> list[bytes]:
    """Split an input into events and messages; other bytes stay in one part."""
    parts: list[bytes] = []
    first, *rest = data.split(bytes((MARK,)))
    data = first
    for part in rest:
        if part[:1] == bytes((LITERAL,)):
            data += bytes((MARK,)) + part[1:]
            continue
        parts += (*_messages(data), event(part[0] if part else CUT))
        data = part[1:]
    return [*parts, *_messages(data)]


def _messages(data: bytes) -> list[bytes]:
    parts = []
    unpacker = Unpacker(use_list=True, strict_map_key=False, unicode_errors="replace")
    unpacker.feed(data)
    at = 0
    try:
        for _ in unpacker:
            end = unpacker.tell()
            parts.append(escaped(data[at:end]))
            at = end
    except DECODE_ERRORS:
        pass
    return parts + [escaped(data[at:])] * (at < len(data))


def escaped(data: bytes) -> bytes:
    """Escape the mark, as a script requires."""
    mark = bytes((MARK,))
    return data.replace(mark, mark + bytes((LITERAL,)))


def _read(part: bytes) -> Any:
    unpacker = Unpacker(use_list=True, strict_map_key=False)
    unpacker.feed(part.replace(bytes((MARK, LITERAL)), bytes((MARK,))))
    try:
        return next(unpacker)
    except (*DECODE_ERRORS, StopIteration):
        return None
