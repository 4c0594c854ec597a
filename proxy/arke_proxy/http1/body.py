"""Parses message bodies in the three framings of HTTP/1.1, without I/O.

Each parser is fed received bytes and returns (payload, rest): the content of the body without its
framing, and the bytes after the body, which are empty until the parser is `done`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

from arke_proxy.errors import MalformedMessage
from arke_proxy.http.header_fields import LOOKALIKE, NOT_IN_TRAILERS
from arke_proxy.http.messages import RequestHead, ResponseHead, has_body
from arke_proxy.http1.field_parser import join, parse_lines
from arke_proxy.http1.head_buffer import HeadBuffer

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED: Final = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_EXTENSION: Final = rb"[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?" % (_TOKEN, _TOKEN, _QUOTED)
_CHUNK_LINE: Final = re.compile(rb"(?P<size>[0-9A-Fa-f]{1,15})(?:%b)*" % _EXTENSION)
_MAX_CHUNK_LINE: Final = 256

_ParseStep = Callable[["ChunkedBody", bytes, int, list[bytes]], int]


class BodyParser(ABC):
    """The parser of one body."""

    __slots__ = ()

    done: bool
    trailer: bytes  # the trailer lines of a chunked body that may be forwarded

    @abstractmethod
    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return (payload, rest). Raises MalformedMessage."""

    @abstractmethod
    def ends_with_stream(self) -> bool:
        """Say whether the body ends where the connection is closed now."""


class LengthBody(BodyParser):
    """A body with Content-Length; `length` is at least 1."""

    __slots__ = ("_remaining", "done")

    trailer = b""

    def __init__(self, length: int) -> None:
        self._remaining = length
        self.done = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        left = self._remaining - len(data)
        if left > 0:
            self._remaining = left
            return data, b""
        self.done = True
        if left == 0:
            return data, b""
        return data[:left], data[left:]

    def ends_with_stream(self) -> bool:
        return False


class StreamBody(BodyParser):
    """A body that ends where the connection is closed."""

    __slots__ = ()

    done = False
    trailer = b""

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        return data, b""

    def ends_with_stream(self) -> bool:
        return True


class ChunkedBody(BodyParser):
    """A chunked body (RFC 9112, 7.1), of at most `most` bytes if given.

    Chunk extensions are dropped, as are trailer fields that may not be forwarded.
    """

    __slots__ = ("_buffered", "_most", "_remaining", "_size", "_step", "done", "trailer")

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._size = 0  # bytes of all chunks so far
        self._buffered = b""  # the first part of a line, or of the trailer section
        self._remaining = 0  # bytes of the chunk, with the CR LF after it
        self._step: _ParseStep = ChunkedBody._read_size  # unbound: avoids a reference cycle
        self.done = False
        self.trailer = b""

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        if self._buffered:
            data = self._buffered + data
            self._buffered = b""
        payload: list[bytes] = []
        at = 0
        while at < len(data) and not self.done:
            at = self._step(self, data, at, payload)
        return b"".join(payload), data[at:]

    def ends_with_stream(self) -> bool:
        return False

    def _read_size(self, data: bytes, at: int, _: list[bytes]) -> int:
        end = data.find(b"\n", at)
        if end < 0 or end - at > _MAX_CHUNK_LINE:
            return self._hold(data, at, _MAX_CHUNK_LINE)
        match = _CHUNK_LINE.fullmatch(data, at, end - 1)
        if not match or data[end - 1] != 0x0D:
            raise MalformedMessage("a chunk size is malformed")
        size = int(match["size"], 16)
        self._size += size
        check_size(self._size, self._most)
        self._remaining = size + 2
        self._step = ChunkedBody._read_data if size else ChunkedBody._read_trailer
        return end + 1

    def _read_data(self, data: bytes, at: int, payload: list[bytes]) -> int:
        if self._remaining > 2:
            piece = data[at : at + self._remaining - 2]
            payload.append(piece)
            self._remaining -= len(piece)
            return at + len(piece)
        ending = data[at : at + self._remaining]
        if ending != b"\r\n"[2 - self._remaining :][: len(ending)]:
            raise MalformedMessage("a chunk is longer than its size")
        self._remaining -= len(ending)
        if not self._remaining:
            self._step = ChunkedBody._read_size
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
            raise MalformedMessage("the framing of its body is too long")
        self._buffered = data[at:]
        return len(data)


def check_size(size: int, most: int | None) -> None:
    """Raise MalformedMessage for a body of more than `most` bytes."""
    if most is not None and size > most:
        raise MalformedMessage(f"its body is larger than {most} bytes", 413)


def kept_trailer(trailer: bytes) -> bytes:
    """Return the trailer lines that may be forwarded. Raises MalformedMessage."""
    lines = parse_lines(trailer)
    if any(line.name == LOOKALIKE for line in lines):
        raise MalformedMessage(
            "a field name in its trailer could be mistaken for another one by the backend"
        )
    return join(line for line in lines if line.name not in NOT_IN_TRAILERS)


def request_body(head: RequestHead, most: int | None = None) -> BodyParser | None:
    """Make the parser of a request's body; None if it has no body (RFC 9112, 6.3).

    Raises MalformedMessage if Content-Length is more than `most` bytes.
    """
    if head.chunked:
        return ChunkedBody(most)
    if not head.length:
        return None
    check_size(head.length, most)
    return LengthBody(head.length)


def response_body(head: ResponseHead, method: bytes) -> BodyParser | None:
    """Make the parser of the body of a response to `method`; None if it has no body."""
    if not has_body(head, method):
        return None
    if head.chunked:
        return ChunkedBody()
    if head.length is None:
        return StreamBody()
    return LengthBody(head.length) if head.length else None


def chunk(payload: bytes) -> bytes:
    """Frame a payload as one chunk. An empty payload is not framed: that would end the body."""
    return b"%x\r\n%b\r\n" % (len(payload), payload) if payload else b""


def last_chunk(trailer: bytes) -> bytes:
    """Return the end of a chunked body."""
    return b"0\r\n%b\r\n" % trailer
