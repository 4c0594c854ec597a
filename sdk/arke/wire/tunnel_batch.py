"""Decode tunnel data that holds several small messages, each a MessagePack binary."""

from __future__ import annotations

from msgpack.exceptions import UnpackException

from arke.wire.limits import CHUNK, unpacker


class TunnelBatchDecoder:
    """Splits the data of DATA messages into tunnel messages. Many tunnels can share one decoder."""

    __slots__ = ("_fed", "_unpacker")

    def __init__(self) -> None:
        self._reset()

    def decode(self, data: bytes) -> list[bytes] | None:
        """Return the messages in `data`; None when it is malformed."""
        unpacker = self._unpacker
        self._fed += len(data)
        try:
            unpacker.feed(data)
            messages = list(unpacker)
        except (UnpackException, ValueError):
            self._reset()
            return None
        if unpacker.tell() != self._fed or set(map(type, messages)) - {bytes}:
            self._reset()
            return None
        return messages

    def _reset(self) -> None:
        self._unpacker = unpacker(2 * CHUNK)
        self._fed = 0
