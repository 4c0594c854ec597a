"""Reassemble large bodies from the chunks that an `Outbox` sends."""

from __future__ import annotations

from arke.wire.chunked_body import BodyChunks, FanoutBody
from arke.wire.limits import CHUNK, MAX_STREAMS
from arke.wire.malformed import Malformed


class ReassemblyError(Malformed):
    """The sender's chunks are inconsistent, so its connection must be closed."""


class _PartialBody:
    """A body that is being received; `body` is None when it was dropped for lack of room."""

    __slots__ = ("body", "total")

    def __init__(self, total: int, body: BodyChunks | None) -> None:
        self.total = total
        self.body = body


class Reassembler:
    """Joins the chunks of one sender's large bodies; bounded in bytes and in streams.

    `max_body` is the largest body accepted; `limit` bounds the total size of all partial bodies.
    """

    __slots__ = ("_limit", "_max_body", "_streams", "refused", "size")

    def __init__(self, max_body: int, limit: int) -> None:
        self._max_body = max(CHUNK, max_body)
        self._limit = limit
        self._streams: dict[int, _PartialBody] = {}
        self.size = 0
        """Total announced size of the partial bodies: the memory they will need when complete."""
        self.refused = 0
        """Number of bodies that were dropped because the limit was reached."""

    def add_chunk(self, stream: object, total: object, data: object) -> None:
        """Add one chunk. Raises ReassemblyError when the sender breaks the protocol."""
        if type(stream) is not int or type(total) is not int or type(data) is not bytes:
            raise ReassemblyError("a chunk must have a stream, a total and data")
        partial = self._streams.get(stream)
        if partial is None:
            partial = self._streams[stream] = self._start(total)
        elif partial.total != total:
            raise ReassemblyError("the chunks of a body announce different sizes")
        body = partial.body
        if body is not None:
            if len(body) + len(data) > total:
                raise ReassemblyError("a body is longer than announced")
            body.append(data)

    def take_fanout(self, body: object) -> FanoutBody | None:
        """Return the body or bodies of a broadcast or event; None if a large one was dropped."""
        if type(body) is bytes:
            return body
        if type(body) is not tuple:
            return self.take_body(body)
        if not body or any(type(each) is not bytes for each in body) or sum(map(len, body)) > CHUNK:
            raise ReassemblyError(
                f"bodies that share a message must be binary, {CHUNK} bytes at most in total"
            )
        return body

    def take_body(self, stream: object) -> BodyChunks | None:
        """Remove and return the complete body of a stream; None if it was dropped."""
        partial = self._streams.pop(stream, None) if type(stream) is int else None
        if partial is None:
            raise ReassemblyError("a message refers to a stream without chunks")
        body = partial.body
        if body is None:
            return None
        self.size -= partial.total
        if len(body) < partial.total:
            raise ReassemblyError("a body is shorter than announced")
        return body

    def _start(self, total: int) -> _PartialBody:
        if not CHUNK < total <= self._max_body:
            raise ReassemblyError(
                f"a chunked body must be {CHUNK + 1} to {self._max_body} bytes (announced {total})"
            )
        if len(self._streams) >= MAX_STREAMS:
            raise ReassemblyError(f"more than {MAX_STREAMS} partial bodies")
        if self.size + total > self._limit:
            self.refused += 1
            return _PartialBody(total, None)
        self.size += total
        return _PartialBody(total, BodyChunks())
