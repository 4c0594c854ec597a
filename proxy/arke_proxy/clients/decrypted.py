"""What a client sends by TLS, handed on in pieces that are small enough to wait.

uvloop hands on all that it has decrypted, which are 256 KiB, and keeps 512 KiB for whoever is not
to send more. With what OpenSSL has of it that were more than a MB for each stalled upload.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

_PIECE: Final = 64 * 1024
_UNREAD: Final = 16 * 1024  # octets to decrypt, from which on no more are read for who is paused
_buffer: Final = memoryview(bytearray(_PIECE))  # for all: what is in it is taken at once


def set_protocol(transport: asyncio.Transport, protocol: Any) -> None:
    """Have `protocol` hear of all that happens to the transport from now on."""
    if transport.get_extra_info("ssl_object") is not None:
        cast("Any", transport).set_read_buffer_limits(high=_UNREAD)  # asyncio names it not
        protocol = _Decrypted(protocol)
    transport.set_protocol(protocol)


class _Decrypted:
    """Between such a transport and a protocol; a buffered protocol of uvloop's, by its methods."""

    __slots__ = ("_protocol",)

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 — as the loop calls it
        return _buffer

    def buffer_updated(self, count: int) -> None:
        self._protocol.data_received(bytes(_buffer[:count]))

    def eof_received(self) -> bool | None:
        return cast("bool | None", self._protocol.eof_received())

    def connection_lost(self, error: Exception | None) -> None:
        self._protocol.connection_lost(error)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()
