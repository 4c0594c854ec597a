"""Small messages of a tunnel that share a piece of its data, each a MessagePack binary."""

from __future__ import annotations

from msgpack.exceptions import UnpackException

from arke.wire.limits import CHUNK, unpacker


class Pieces:
    """Takes them out of one tunnel's pieces, or of many tunnels'."""

    __slots__ = ("_fed", "_unpacker")

    def __init__(self) -> None:
        self._begin_anew()

    def open(self, data: bytes) -> list[bytes] | None:
        """The messages of one piece; None when it is nothing that any end sends."""
        unpacked = self._unpacker
        self._fed += len(data)
        try:
            unpacked.feed(data)
            messages = list(unpacked)
        except (UnpackException, ValueError):
            self._begin_anew()
            return None
        if unpacked.tell() != self._fed or set(map(type, messages)) - {bytes}:
            self._begin_anew()
            return None
        return messages

    def _begin_anew(self) -> None:
        self._unpacker = unpacker(2 * CHUNK)
        self._fed = 0
