"""Bodies over one chunk: an outbox that cuts and interleaves them, an inbox that joins them.

A large body travels as `[CHUNK, stream, total, data]` messages, followed by its own message with the stream's
number in place of the body. Streams share the link in turns and small messages go first, except those that
must keep their order behind a large one of the same sender and name.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Any

from msgpack import Packer

from arke.wire.bounds import CHUNK, MAX_STREAMS
from arke.wire.messages import Op

_CHUNK_OP = int(Op.CHUNK)
_RUNNING_START = 32 * 1024  # small messages that may go ahead of a chunk in one batch


class BrokenStream(ValueError):
    """The chunks do not add up; the connection that sent them cannot be understood any further."""


class _Large:
    """One message whose body is being cut."""

    __slots__ = ("at", "body", "fields", "sent", "stream")

    def __init__(self, fields: tuple[Any, ...], at: int) -> None:
        self.fields = fields
        self.at = at
        self.body = fields[at]
        self.sent = 0
        self.stream = -1


class Outbox:
    """Messages on their way to one receiver, bounded in octets.

    `put` is the hot path: one pack, one append. `take` empties it in an order that lets small ones pass.
    """

    __slots__ = ("_flows", "_limit", "_pack", "_ready", "_streams", "_turn", "size")

    def __init__(self, limit: int) -> None:
        self.size = 0
        self._limit = limit
        self._pack = Packer().pack
        self._ready: list[bytes] = []
        self._flows: dict[Hashable, deque[_Large | bytes]] = {}
        self._turn: deque[Hashable] = deque()
        self._streams = 0

    def put(self, message: tuple[Any, ...]) -> bool:
        """Queue a message without a large body. False: there is no room, and it was dropped."""
        if self.size > self._limit:
            return False
        data = self._pack(message)
        self._ready.append(data)
        self.size += len(data)
        return True

    def put_body(self, message: tuple[Any, ...], at: int, order: Hashable = None) -> bool:
        """Queue a message whose body is field `at`; those with an equal `order` stay in order."""
        if self._flows or len(message[at]) > CHUNK:
            return self._put_behind(message, at, order)
        if self.size > self._limit:
            return False
        data = self._pack(message)
        self._ready.append(data)
        self.size += len(data)
        return True

    def put_packed(self, data: bytes, order: Hashable) -> bool:
        """Queue a message that was packed once for many receivers."""
        if self.size > self._limit:
            return False
        flow = self._flows.get(order) if self._flows else None
        if flow is None:
            self._ready.append(data)
        else:
            flow.append(data)
        self.size += len(data)
        return True

    def _put_behind(self, message: tuple[Any, ...], at: int, order: Hashable) -> bool:
        flow = None if order is None else self._flows.get(order)
        size = len(message[at])
        if size <= CHUNK and flow is None:
            return self.put(message)
        if self.size > self._limit:
            return False
        item: _Large | bytes = _Large(message, at)
        if size <= CHUNK:
            packed: bytes = self._pack(message)
            item, size = packed, len(packed)
        if flow is None:
            key: Hashable = item if order is None else order
            self._flows[key] = deque((item,))
            self._turn.append(key)
        else:
            flow.append(item)
        self.size += size
        return True

    def take(self, room: int) -> bytes:
        """The next octets to send: about `room` of them, at least one message; empty when there is none."""
        ready = self._ready
        if not self._turn and self.size <= room:
            data = ready[0] if len(ready) == 1 else b"".join(ready)
            ready.clear()
            self.size = 0
            return data
        return self._take_some(room)

    def _take_some(self, room: int) -> bytes:
        ready = self._ready
        taken = 0
        count = 0
        allowed = min(room, _RUNNING_START) if self._turn else room
        for data in ready:
            taken += len(data)
            count += 1
            if taken >= allowed:
                break
        parts = ready[:count]
        del ready[:count]
        self.size -= taken
        # Large bodies move with every batch: small messages pass them but cannot starve them.
        while self._turn and taken < room:
            part = self._next_part()
            parts.append(part)
            taken += len(part)
            if taken >= _RUNNING_START:
                break
        return b"".join(parts)

    def _next_part(self) -> bytes:
        key = self._turn.popleft()
        flow = self._flows[key]
        item = flow[0]
        if isinstance(item, bytes):
            self.size -= len(item)
            flow.popleft()
            part = item
        else:
            part = self._cut(item)
            if item.sent == len(item.body):
                fields = item.fields
                part += self._pack((*fields[: item.at], item.stream, *fields[item.at + 1 :]))
                flow.popleft()
        if flow:
            self._turn.append(key)
        else:
            del self._flows[key]
        return part

    def _cut(self, item: _Large) -> bytes:
        if item.stream < 0:
            item.stream = self._streams
            self._streams += 1
        data = bytes(item.body[item.sent : item.sent + CHUNK])
        item.sent += len(data)
        self.size -= len(data)
        packed: bytes = self._pack((_CHUNK_OP, item.stream, len(item.body), data))
        return packed

    def __bool__(self) -> bool:
        return self.size > 0 or bool(self._turn)


class Inbox:
    """Joins the chunks of one sender's large bodies, bounded in octets and in streams."""

    __slots__ = ("_largest", "_limit", "_streams", "refused", "size")

    def __init__(self, largest: int, limit: int) -> None:
        self._largest = largest
        self._limit = limit
        self._streams: dict[int, bytearray | None] = {}
        self.size = 0
        self.refused = 0
        """Bodies given up because the limit was reached."""

    def chunk(self, stream: object, total: object, data: object) -> None:
        """Take one chunk. Raises BrokenStream for what no honest sender sends."""
        if type(stream) is not int or type(total) is not int or type(data) is not bytes:
            raise BrokenStream("a chunk is a stream, a total and data")
        if not CHUNK < total <= self._largest:
            raise BrokenStream(f"a body of {total} octets is not cut into chunks here")
        if stream in self._streams:
            buffer = self._streams[stream]
        elif len(self._streams) >= MAX_STREAMS:
            raise BrokenStream(f"more than {MAX_STREAMS} bodies half sent")
        else:
            buffer = bytearray()
            if self.size + total > self._limit:
                buffer = None
                self.refused += 1
            self._streams[stream] = buffer
        if buffer is None:
            return
        if len(buffer) + len(data) > total:
            raise BrokenStream("a body is longer than it said")
        buffer += data
        self.size += len(data)

    def body(self, stream: object) -> bytes | None:
        """The joined body of a stream that has ended; None if it was given up for lack of room."""
        if type(stream) is not int or stream not in self._streams:
            raise BrokenStream("a message names a body that was not sent")
        buffer = self._streams.pop(stream)
        if buffer is None:
            return None
        self.size -= len(buffer)
        return bytes(buffer)
