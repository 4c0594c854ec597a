"""Track where MessagePack messages end in a stream, as the codec must."""

from __future__ import annotations

from arke.wire.limits import CHUNK, unpacker
from arke.wire.malformed import DECODE_ERRORS
from arke.wire.messages import Op


class MessageBoundaries:
    """The message boundaries of one direction of one connection."""

    def __init__(self) -> None:
        self._unpacker = unpacker()
        self._sent = self._whole = 0
        self.invalid = False
        """The stream is not MessagePack within the limits."""
        self.closed = False
        """The sender has sent CLOSE."""

    def follow(self, data: bytes) -> None:
        if self.invalid:
            return
        self._sent += len(data)
        try:
            for at in range(0, len(data), CHUNK):
                self._unpacker.feed(data[at : at + CHUNK])
                for message in self._unpacker:
                    self.closed |= type(message) is tuple and message[:1] == (Op.CLOSE,)
                    self._whole = self._unpacker.tell()
        except DECODE_ERRORS:
            self.invalid = True

    @property
    def at_boundary(self) -> bool:
        """Whether the stream ends between two messages."""
        return self._sent == self._whole
