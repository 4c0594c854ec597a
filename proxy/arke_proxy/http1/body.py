"""Where a body ends: the three ways of HTTP/1.1, without I/O.

Each reader is fed what arrives and returns (payload, rest): what belongs to the body, without its
framing, and what follows it, which is empty until the reader is `done`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

from arke_proxy.errors import MalformedMessage
from arke_proxy.http.header_fields import LOOKALIKE, NOT_IN_TRAILERS
from arke_proxy.http.messages import RequestHead, ResponseHead, has_body
from arke_proxy.http1.field_parser import join, read_lines
from arke_proxy.http1.head_buffer import HeadBuffer

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED: Final = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_EXTENSION: Final = rb"[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?" % (_TOKEN, _TOKEN, _QUOTED)
_CHUNK_LINE: Final = re.compile(rb"(?P<size>[0-9A-Fa-f]{1,15})(?:%b)*" % _EXTENSION)
_MAX_CHUNK_LINE: Final = 256

_Step = Callable[["ChunkedBody", bytes, int, list[bytes]], int]


class Body(ABC):
    """The reader of one body."""

    __slots__ = ()

    done: bool
    trailer: bytes  # the lines that followed a chunked body, and may be passed on

    @abstractmethod
    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return (payload, rest). Raises MalformedMessage."""

    @abstractmethod
    def ends_with_stream(self) -> bool:
        """Say whether the end of the stream, now, is the end of the body."""


class LengthBody(Body):
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


class StreamBody(Body):
    """Everything until the connection ends."""

    __slots__ = ()

    done = False
    trailer = b""

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        return data, b""

    def ends_with_stream(self) -> bool:
        return True


class ChunkedBody(Body):
    """Chunks (RFC 9112, 7.1), of no more than `most` bytes if that is given.

    Extensions are dropped, and trailers that may not be passed on.
    """

    __slots__ = ("_held", "_left", "_most", "_read", "_size", "done", "trailer")

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._size = 0  # of all chunks so far
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
            raise MalformedMessage("the size of a chunk is none")
        size = int(match["size"], 16)
        self._size += size
        check_size(self._size, self._most)
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
            raise MalformedMessage("a chunk does not end where its size says")
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
        self.trailer = kept_trailer(data[at : end + 4])
        self.done = True
        return end + 4

    def _hold(self, data: bytes, at: int, limit: int) -> int:
        if len(data) - at > limit:
            raise MalformedMessage("the framing of its body has no end")
        self._held = data[at:]
        return len(data)


def check_size(size: int, most: int | None) -> None:
    """Raise MalformedMessage for a body of more than `most` bytes."""
    if most is not None and size > most:
        raise MalformedMessage(f"its body is larger than {most} bytes", 413)


def kept_trailer(trailer: bytes) -> bytes:
    """Return the trailer lines that may be forwarded. Raises MalformedMessage."""
    lines = read_lines(trailer)
    if any(line.name == LOOKALIKE for line in lines):
        raise MalformedMessage("the name of a field in its trailer could be taken for another")
    return join(line for line in lines if line.name not in NOT_IN_TRAILERS)


def request_body(head: RequestHead, most: int | None = None) -> Body | None:
    """Make the reader of a request's body, None if it has none (RFC 9112, 6.3).

    `most` is how many bytes it may have. Raises MalformedMessage if it says that it has more.
    """
    if head.chunked:
        return ChunkedBody(most)
    if not head.length:
        return None
    check_size(head.length, most)
    return LengthBody(head.length)


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
