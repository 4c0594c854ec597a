"""The body of a request on its way to a backend; a small one is kept for a retry."""

from __future__ import annotations

from typing import Final

from arke_proxy.balancing.retry import IDEMPOTENT
from arke_proxy.http.messages import RequestHead
from arke_proxy.http1.body import chunk, last_chunk

REPLAY_LIMIT: Final = 64 * 1024  # bytes of a body that are kept


class RequestBody:
    """Frames the body for the backend, and remembers it while it may have to be sent again."""

    __slots__ = ("_chunked", "_idempotent", "_kept", "_size", "_trailer", "complete")

    def __init__(self, head: RequestHead) -> None:
        self._chunked = head.chunked
        self._idempotent = head.method in IDEMPOTENT
        self._kept: list[bytes] | None = []  # None once part of it is forgotten
        self._size = 0
        self._trailer = b""
        self.complete = False  # all of it has arrived

    def add(self, payload: bytes, *, done: bool, trailer: bytes) -> None:
        """Take a part that has arrived. `trailer`: the trailer lines, with the last part."""
        self.complete = done
        self._trailer = trailer
        self._size += len(payload)
        if self._kept is not None:
            self._kept.append(payload)

    @property
    def too_large_to_keep(self) -> bool:
        return self._size > REPLAY_LIMIT

    @property
    def can_replay(self) -> bool:
        return self._kept is not None

    def framed(self, payload: bytes) -> bytes:
        """Return the part that `add` has just taken, as the backend gets it."""
        if not self._chunked:
            return payload
        return chunk(payload) + (last_chunk(self._trailer) if self.complete else b"")

    def framed_so_far(self) -> bytes:
        """Return everything that has arrived, as the backend gets it."""
        assert self._kept is not None
        return self.framed(b"".join(self._kept))

    def forget(self) -> None:
        """After sending: keep the body only if it may be sent again, and is small."""
        if self._size > REPLAY_LIMIT or not self._idempotent:
            self._kept = None
