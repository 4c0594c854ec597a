"""Buffers received bytes, and finds the end of each message head."""

from __future__ import annotations

import re
from typing import Final

from arke_proxy.errors import MalformedMessage

END_OF_HEAD: Final = b"\r\n\r\n"
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)*")


class HeadBuffer:
    """Buffers bytes until a head is complete. Raises MalformedMessage if it cannot become one."""

    __slots__ = ("_buffer", "_searched", "_skip_empty")

    MAX_LINE: Final = 8 * 1024  # bytes of the first line; a common limit of servers
    MAX_HEAD: Final = 64 * 1024  # bytes

    def __init__(self, *, skips_empty_lines: bool = True) -> None:
        self._skip_empty = skips_empty_lines  # before requests only (RFC 9112, 2.2)
        self._buffer = b""
        self._searched = 0  # no head ends before this position

    def __len__(self) -> int:
        return len(self._buffer)

    @property
    def empty(self) -> bool:
        """Whether no part of a head is buffered. Half an empty line before a request is ignored."""
        return not self._buffer or (self._buffer == b"\r" and self._skip_empty)

    def push(self, data: bytes) -> None:
        """Add received bytes."""
        self._buffer = self._buffer + data if self._buffer else data

    def take(self, data: bytes) -> bytes | None:
        """Add received bytes, and pull. Fast for the usual case: one head, and an empty buffer."""
        if not self._buffer and data[:1] != b"\r":
            end = data.find(END_OF_HEAD)
            if 0 <= end <= self.MAX_LINE:
                end += len(END_OF_HEAD)
                self._buffer = data[end:]
                return data[:end]
        self.push(data)
        return self.pull()

    def pull(self) -> bytes | None:
        """Take one complete head, with its empty line; None while it is incomplete."""
        buffer = self._buffer
        if not buffer:
            return None
        if buffer[:1] == b"\r" and self._skip_empty:
            buffer = self._skip_empty_lines()
        end = buffer.find(END_OF_HEAD, max(0, self._searched - 3))
        if end < 0:
            self._check_unfinished()
            return None
        if end > self.MAX_LINE:
            self._check_size(buffer, end)
        end += len(END_OF_HEAD)
        head = buffer[:end]
        self._buffer = buffer[end:]
        self._searched = 0
        return head

    def begins_with(self, prefix: bytes) -> bool:
        """Say whether the buffered bytes start with `prefix`."""
        return self._buffer.startswith(prefix)

    def rest(self) -> bytes:
        """Take all buffered bytes: those after the head that was pulled last."""
        buffer = self._buffer
        self._buffer = b""
        self._searched = 0
        return buffer

    def _skip_empty_lines(self) -> bytes:
        lines = _EMPTY_LINES.match(self._buffer)
        assert lines
        self._buffer = self._buffer[lines.end() :]
        self._searched = 0
        return self._buffer

    def _check_unfinished(self) -> None:
        """Reject a head as soon as no further byte can make it valid; bound the buffer."""
        buffer, searched = self._buffer, self._searched
        # A parser that accepts a bare LF as a line end would see other lines than this parser.
        if buffer.count(b"\n", searched) != buffer.count(b"\r\n", max(0, searched - 1)):
            raise MalformedMessage("a line ends without CR")
        self._searched = len(buffer)
        if len(buffer) > self.MAX_LINE:
            self._check_size(buffer, len(buffer))

    def _check_size(self, buffer: bytes, size: int) -> None:
        if buffer.find(b"\r\n", 0, self.MAX_LINE + 2) < 0:
            raise MalformedMessage(f"its first line is longer than {self.MAX_LINE} bytes", 414)
        if size > self.MAX_HEAD:
            raise MalformedMessage(f"its head is larger than {self.MAX_HEAD} bytes", 431)
