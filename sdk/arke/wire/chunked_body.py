"""A large body kept in chunks, so that a relay forwards it without joining and splitting it."""

from __future__ import annotations

from arke.wire.limits import CHUNK


class BodyChunks:
    """A body over CHUNK bytes, stored in chunks of CHUNK bytes except for the last."""

    __slots__ = ("_chunks", "_size", "_tail")

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._tail = bytearray()
        self._size = 0

    def append(self, data: bytes) -> None:
        """Add the next bytes of the body."""
        self._size += len(data)
        tail = self._tail
        if not tail and len(data) == CHUNK:
            self._chunks.append(data)  # a correct sender cuts at CHUNK bytes, so nothing is copied
            return
        # Small pieces are merged: a Python object for each would cost far more than its bytes.
        tail += data
        while len(tail) >= CHUNK:
            self._chunks.append(bytes(tail[:CHUNK]))
            del tail[:CHUNK]

    def chunk(self, offset: int) -> bytes:
        """Return the chunk that starts at `offset`, a multiple of CHUNK."""
        number = offset // CHUNK
        return self._chunks[number] if number < len(self._chunks) else bytes(self._tail)

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        return b"".join((*self._chunks, self._tail))


Body = bytes | BodyChunks

FanoutBody = Body | tuple[bytes, ...]
"""The body of a broadcast or event message: one body, or several small ones that share it."""
