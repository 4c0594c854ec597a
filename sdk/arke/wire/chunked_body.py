"""A large body as it travels: passed on, it is neither joined nor cut again."""

from __future__ import annotations

from arke.wire.limits import CHUNK


class Chunked:
    """A body over CHUNK octets, in pieces of CHUNK octets but for the last."""

    __slots__ = ("_chunks", "_size", "_tail")

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._tail = bytearray()
        self._size = 0

    def append(self, data: bytes) -> None:
        self._size += len(data)
        tail = self._tail
        if not tail and len(data) == CHUNK:
            self._chunks.append(data)  # as every honest sender cuts
            return
        # What comes in crumbs must not cost more than it holds.
        tail += data
        while len(tail) >= CHUNK:
            self._chunks.append(bytes(tail[:CHUNK]))
            del tail[:CHUNK]

    def chunk(self, at: int) -> bytes:
        """The piece that begins `at` octets into the body."""
        number = at // CHUNK
        return self._chunks[number] if number < len(self._chunks) else bytes(self._tail)

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        return b"".join((*self._chunks, self._tail))


Body = bytes | Chunked

Cast = Body | tuple[bytes, ...]
"""What one broadcast or event message carries: one body, or several small ones."""
