"""Cuts a stream of bytes where a message's head ends."""

from __future__ import annotations

import re
from typing import Final

from arke_proxy.errors import MalformedMessage

END_OF_HEAD: Final = b"\r\n\r\n"
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)*")


class HeadBuffer:
    """Buffers bytes until a head is complete. Raises MalformedMessage if it cannot become one."""

    __slots__ = ("_held", "_looked", "_skips")

    MAX_LINE: Final = 8 * 1024  # of the first line; what servers commonly take
    MAX_HEAD: Final = 64 * 1024

    def __init__(self, *, skips_empty_lines: bool = True) -> None:
        self._skips = skips_empty_lines  # before requests only (RFC 9112, 2.2)
        self._held = b""
        self._looked = 0  # up to here there is no end of a head

    def __len__(self) -> int:
        return len(self._held)

    @property
    def empty(self) -> bool:
        """Whether nothing of a head is here: half an empty line before a request is nothing."""
        return not self._held or (self._held == b"\r" and self._skips)

    def push(self, data: bytes) -> None:
        """Add what arrived."""
        self._held = self._held + data if self._held else data

    def take(self, data: bytes) -> bytes | None:
        """Add what arrived, and pull; the usual way is short: one head, and nothing held."""
        if not self._held and data[:1] != b"\r":
            end = data.find(END_OF_HEAD)
            if 0 <= end <= self.MAX_LINE:
                end += len(END_OF_HEAD)
                self._held = data[end:]
                return data[:end]
        self.push(data)
        return self.pull()

    def pull(self) -> bytes | None:
        """Take one whole head, its empty line included; None while it is not whole."""
        held = self._held
        if not held:
            return None
        if held[:1] == b"\r" and self._skips:
            held = self._skip_empty_lines()
        end = held.find(END_OF_HEAD, max(0, self._looked - 3))
        if end < 0:
            self._check_unfinished()
            return None
        if end > self.MAX_LINE:
            self._check_size(held, end)
        end += len(END_OF_HEAD)
        head = held[:end]
        self._held = held[end:]
        self._looked = 0
        return head

    def begins_with(self, prefix: bytes) -> bool:
        """Look at what is held: the head that has not been pulled yet."""
        return self._held.startswith(prefix)

    def rest(self) -> bytes:
        """Take everything that is held: what follows the head pulled last."""
        held = self._held
        self._held = b""
        self._looked = 0
        return held

    def _skip_empty_lines(self) -> bytes:
        lines = _EMPTY_LINES.match(self._held)
        assert lines
        self._held = self._held[lines.end() :]
        self._looked = 0
        return self._held

    def _check_unfinished(self) -> None:
        """Refuse at once what no further byte can mend; never hold more than a head may have."""
        held, looked = self._held, self._looked
        # A reader that takes a lone LF for the end of a line would see other lines than we do.
        if held.count(b"\n", looked) != held.count(b"\r\n", max(0, looked - 1)):
            raise MalformedMessage("a line ends without CR")
        self._looked = len(held)
        if len(held) > self.MAX_LINE:
            self._check_size(held, len(held))

    def _check_size(self, held: bytes, size: int) -> None:
        if held.find(b"\r\n", 0, self.MAX_LINE + 2) < 0:
            raise MalformedMessage(f"its first line is longer than {self.MAX_LINE} bytes", 414)
        if size > self.MAX_HEAD:
            raise MalformedMessage(f"its head is larger than {self.MAX_HEAD} bytes", 431)
