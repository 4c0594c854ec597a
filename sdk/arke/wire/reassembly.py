"""An inbox that gathers the chunks of large bodies which an `Outbox` has cut."""

from __future__ import annotations

from arke.wire.chunked_body import Cast, Chunked
from arke.wire.limits import CHUNK, MAX_STREAMS
from arke.wire.malformed import Malformed


class BrokenStream(Malformed):
    """The chunks do not add up; the connection that sent them cannot be understood any further."""


class _Half:
    """A body that is half received; without a body it was given up."""

    __slots__ = ("body", "total")

    def __init__(self, total: int, body: Chunked | None) -> None:
        self.total = total
        self.body = body


class Inbox:
    """Gathers the chunks of one sender's large bodies, bounded in octets and in streams."""

    __slots__ = ("_largest", "_limit", "_streams", "refused", "size")

    def __init__(self, largest: int, limit: int) -> None:
        self._largest = max(CHUNK, largest)
        self._limit = limit
        self._streams: dict[int, _Half] = {}
        self.size = 0
        """Octets of the bodies half received, once they are whole: what this may come to cost."""
        self.refused = 0
        """Bodies given up because the limit was reached."""

    def chunk(self, stream: object, total: object, data: object) -> None:
        """Take one chunk. Raises BrokenStream for what no honest sender sends."""
        if type(stream) is not int or type(total) is not int or type(data) is not bytes:
            raise BrokenStream("a chunk is a stream, a total and data")
        half = self._streams.get(stream)
        if half is None:
            half = self._streams[stream] = self._begin(total)
        elif half.total != total:
            raise BrokenStream("a body is not as long as it said")
        body = half.body
        if body is not None:
            if len(body) + len(data) > total:
                raise BrokenStream("a body is longer than it said")
            body.append(data)

    def cast(self, body: object) -> Cast | None:
        """The body or bodies of a cast; None if a large one was given up for lack of room."""
        if type(body) is bytes:
            return body
        if type(body) is not tuple:
            return self.body(body)
        if not body or any(type(each) is not bytes for each in body) or sum(map(len, body)) > CHUNK:
            raise BrokenStream("bodies that share a message are small, and octets")
        return body

    def body(self, stream: object) -> Chunked | None:
        """The whole body of a stream that has ended; None if it was given up for lack of room."""
        half = self._streams.pop(stream, None) if type(stream) is int else None
        if half is None:
            raise BrokenStream("a message names a body that was not sent")
        body = half.body
        if body is None:
            return None
        self.size -= half.total
        if len(body) < half.total:
            raise BrokenStream("a body is shorter than it said")
        return body

    def _begin(self, total: int) -> _Half:
        if not CHUNK < total <= self._largest:
            raise BrokenStream(f"a body of {total} octets is not cut into chunks here")
        if len(self._streams) >= MAX_STREAMS:
            raise BrokenStream(f"more than {MAX_STREAMS} bodies half sent")
        if self.size + total > self._limit:
            self.refused += 1
            return _Half(total, None)
        self.size += total
        return _Half(total, Chunked())
