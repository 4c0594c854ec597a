"""Knows where messages end in what was sent, as the codec must."""

from __future__ import annotations

from arke.wire.limits import CHUNK, unpacker
from arke.wire.malformed import DECODE_ERRORS
from arke.wire.messages import Op


class Shadow:
    """Of one direction of one connection."""

    def __init__(self) -> None:
        self._unpacker = unpacker()
        self._sent = self._whole = 0
        self.broken = False
        """Something came that is no MessagePack within the bounds."""
        self.closed = False
        """The sender said that it closes."""

    def follow(self, octets: bytes) -> None:
        if self.broken:
            return
        self._sent += len(octets)
        try:
            for at in range(0, len(octets), CHUNK):
                self._unpacker.feed(octets[at : at + CHUNK])
                for message in self._unpacker:
                    self.closed |= type(message) is tuple and message[:1] == (Op.CLOSE,)
                    self._whole = self._unpacker.tell()
        except DECODE_ERRORS:
            self.broken = True

    @property
    def between(self) -> bool:
        """Between two messages, and not in the middle of one."""
        return self._sent == self._whole
