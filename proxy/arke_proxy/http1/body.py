"""Where a body ends: the three ways of HTTP/1.1, without I/O.

Each reader is fed what arrives and returns (payload, rest): what belongs to the body, without its
framing, and what follows it, which is empty until the reader is `done`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

from arke_proxy.errors import Malformed
from arke_proxy.http1.fields import MAX_FIELDS, NOT_IN_TRAILERS
from arke_proxy.http1.head import RequestHead, ResponseHead, has_body
from arke_proxy.http1.head_buffer import HeadBuffer

_CHUNK_LINE = re.compile(rb"(?P<size>[0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_MAX_CHUNK_LINE = 1024
_TRAILER = re.compile(rb"(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+):[\t\x20-\x7e\x80-\xff]*\r\n")


_Step = Callable[["ChunkedBody", bytes, int, list[bytes]], int]


class Body(Protocol):
    """The reader of one body."""

    done: bool
    trailer: bytes  # the lines that followed a chunked body, and may be passed on

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return (payload, rest). Raises Malformed."""

    def ends_with_stream(self) -> bool:
        """Say whether the end of the stream, now, is the end of the body."""


class LengthBody:
    """As many bytes as Content-Length said; `length` is at least 1."""

    __slots__ = ("_left", "done")

    trailer = b""

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        left = self._left - len(data)
        if left > 0:
            self._left = left
            return data, b""
        self.done = True
        if left == 0:
            return data, b""
        return data[:left], data[left:]

    def ends_with_stream(self) -> bool:
        return False


class StreamBody:
    """Everything until the connection ends."""

    __slots__ = ()

    done = False
    trailer = b""

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        return data, b""

    def ends_with_stream(self) -> bool:
        return True


class ChunkedBody:
    """Chunks (RFC 9112, 7.1). Extensions are dropped, and trailers that may not be passed on."""

    __slots__ = ("_held", "_left", "_read", "done", "trailer")

    def __init__(self) -> None:
        self._held = b""  # the beginning of a line, or of a trailer section
        self._left = 0  # of the chunk's data, the two bytes after it included
        self._read: _Step = ChunkedBody._read_size  # not bound: no cycle for the collector
        self.done = False
        self.trailer = b""

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        if self._held:
            data = self._held + data
            self._held = b""
        payload: list[bytes] = []
        at = 0
        while at < len(data) and not self.done:
            at = self._read(self, data, at, payload)
        return b"".join(payload), data[at:]

    def ends_with_stream(self) -> bool:
        return False

    def _read_size(self, data: bytes, at: int, _: list[bytes]) -> int:
        end = data.find(b"\n", at)
        if end < 0 or end - at > _MAX_CHUNK_LINE:
            return self._hold(data, at, _MAX_CHUNK_LINE)
        match = _CHUNK_LINE.fullmatch(data, at, end - 1)
        if not match or data[end - 1] != 0x0D:
            raise Malformed("the size of a chunk is none")
        size = int(match["size"], 16)
        self._left = size + 2
        self._read = ChunkedBody._read_data if size else ChunkedBody._read_trailer
        return end + 1

    def _read_data(self, data: bytes, at: int, payload: list[bytes]) -> int:
        if self._left > 2:
            piece = data[at : at + self._left - 2]
            payload.append(piece)
            self._left -= len(piece)
            return at + len(piece)
        ending = data[at : at + self._left]
        if ending != b"\r\n"[2 - self._left :][: len(ending)]:
            raise Malformed("a chunk does not end where its size says")
        self._left -= len(ending)
        if not self._left:
            self._read = ChunkedBody._read_size
        return at + len(ending)

    def _read_trailer(self, data: bytes, at: int, _: list[bytes]) -> int:
        if data.startswith(b"\r\n", at):
            self.done = True
            return at + 2
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            return self._hold(data, at, HeadBuffer.MAX_HEAD)
        self.trailer = self._kept(data, at, end + 2)
        self.done = True
        return end + 4

    def _kept(self, data: bytes, at: int, end: int) -> bytes:
        lines: list[bytes] = []
        while at < end:
            match = _TRAILER.match(data, at, end)
            if not match or len(lines) == MAX_FIELDS:
                raise Malformed("the trailer of its body is none")
            if match["name"].lower() not in NOT_IN_TRAILERS:
                lines.append(match[0])
            at = match.end()
        return b"".join(lines)

    def _hold(self, data: bytes, at: int, limit: int) -> int:
        if len(data) - at > limit:
            raise Malformed("the framing of its body has no end")
        self._held = data[at:]
        return len(data)


def request_body(head: RequestHead) -> Body | None:
    """Make the reader of a request's body, None if it has none (RFC 9112, 6.3)."""
    if head.chunked:
        return ChunkedBody()
    return LengthBody(head.length) if head.length else None


def response_body(head: ResponseHead, method: bytes) -> Body | None:
    """Make the reader of the body of an answer to `method`, None if it has none."""
    if not has_body(head, method):
        return None
    if head.chunked:
        return ChunkedBody()
    if head.length is None:
        return StreamBody()
    return LengthBody(head.length) if head.length else None


def chunk(payload: bytes) -> bytes:
    """Frame a payload as one chunk; an empty one as nothing, for an empty chunk ends the body."""
    return b"%x\r\n%b\r\n" % (len(payload), payload) if payload else b""


def last_chunk(trailer: bytes) -> bytes:
    """End a chunked body."""
    return b"0\r\n%b\r\n" % trailer
