"""What a client sends by TLS, handed on without the copies that uvloop makes of it.

For a protocol with `data_received` uvloop decrypts what it has read into many pieces, joins them,
and reads up to 512 KiB more for one that is paused: over a MB for each stalled upload. A buffered
protocol gets all of it in one buffer, which all connections share.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

_UNREAD: Final = 16 * 1024  # octets left to decrypt, from which on uvloop stops reading
# There is room for these, for what uvloop reads at once (256 KiB), and for what OpenSSL keeps (16):
# with less it would leave a rest for later, and forget that if the client says goodbye meanwhile.
_ROOM: Final = 320 * 1024
_buffer: Final = memoryview(bytearray(_ROOM))  # what is in it is taken before anything else runs


def attach(transport: asyncio.Transport, protocol: Any) -> None:
    """Have `protocol` hear of all that happens to the transport from now on."""
    if transport.get_extra_info("ssl_object") is not None:
        cast("Any", transport).set_read_buffer_limits(high=_UNREAD)  # the type does not know it
        protocol = _Decrypted(protocol)
    transport.set_protocol(protocol)


class _Decrypted:
    """Between such a transport and a protocol.

    uvloop takes it for a buffered protocol, as it has `get_buffer` and is no asyncio.Protocol.
    """

    __slots__ = ("_protocol",)

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 — as uvloop calls it
        return _buffer

    def buffer_updated(self, count: int) -> None:
        self._protocol.data_received(bytes(_buffer[:count]))

    def eof_received(self) -> bool | None:
        return cast("bool | None", self._protocol.eof_received())

    def connection_lost(self, error: Exception | None) -> None:
        # uvloop keeps its hold of this object: all of the connection would wait for a collection.
        protocol, self._protocol = self._protocol, None
        protocol.connection_lost(error)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()
