"""Receive buffer for TLS connections: avoids the copies that uvloop makes of decrypted data.

For a protocol with `data_received`, uvloop decrypts into many small pieces, joins them, and reads
up to 512 KiB more while the protocol is paused: over 1 MB for each stalled upload. A buffered
protocol gets everything in one buffer, which all connections share.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

_UNREAD: Final = 16 * 1024  # bytes; while more wait to be decrypted, uvloop stops reading
# Room for _UNREAD, for what uvloop reads at once (256 KiB), and for what OpenSSL keeps (16 KiB).
# With less, uvloop would leave a rest for later, and lose it if the client closes TLS meanwhile.
_ROOM: Final = 320 * 1024
_buffer: Final = memoryview(bytearray(_ROOM))  # its content is copied before anything else runs


def attach(transport: asyncio.Transport, protocol: Any) -> None:
    """Make `protocol` the protocol of a transport, which may be TLS."""
    if transport.get_extra_info("ssl_object") is not None:
        cast("Any", transport).set_read_buffer_limits(high=_UNREAD)  # not in the type
        protocol = SharedBufferProtocol(protocol)
    transport.set_protocol(protocol)


class SharedBufferProtocol:
    """Passes what a TLS transport receives to a protocol with `data_received`.

    uvloop takes it for a buffered protocol: it has `get_buffer`, and is no asyncio.Protocol.
    """

    __slots__ = ("_protocol",)

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 — uvloop's signature
        return _buffer

    def buffer_updated(self, count: int) -> None:
        self._protocol.data_received(bytes(_buffer[:count]))

    def eof_received(self) -> bool | None:
        return cast("bool | None", self._protocol.eof_received())

    def connection_lost(self, error: Exception | None) -> None:
        # uvloop keeps a reference to this object, which would keep the connection in memory.
        protocol, self._protocol = self._protocol, None
        protocol.connection_lost(error)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()
