"""A connection to a backend that the backend's own member makes, as a transport."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import cast

import arke

_PIECE = 64 * 1024  # bytes of one message: as much as the member takes
_HIGH_WATER = 64 * 1024  # bytes waiting here, unless set otherwise
_REASON = 100  # characters of what another machine says

_KNOWN = {kind.__name__: kind for kind in (ConnectionRefusedError, TimeoutError)}


class TunnelTransport(asyncio.Transport):
    """Octets through a tunnel, for a protocol that cannot tell it from a socket's transport.

    One task reads and one writes, for as long as the connection lasts. What is written in one turn
    of the loop leaves in as few messages as hold it; no more than the protocol's limit waits here,
    and one message that came while reading was paused.
    """

    def __init__(
        self, tunnel: arke.Tunnel, protocol: asyncio.BaseProtocol, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__()
        self._tunnel = tunnel
        self._protocol = cast("asyncio.Protocol", protocol)
        self._loop = loop
        self._unsent = bytearray()
        self._sending = 0  # bytes that have left `_unsent` and wait for the member's credit
        self._high, self._low = _HIGH_WATER, _HIGH_WATER // 4
        self._full = False  # the protocol was told to pause
        self._work = asyncio.Event()  # for the writer
        self._reading = asyncio.Event()
        self._reading.set()
        self._sent_all = False  # behind what is unsent, nothing more comes
        self._closing = False
        self._lost = False
        self._protocol.connection_made(self)
        self._reader = loop.create_task(self._run(self._read()))
        self._writer = loop.create_task(self._run(self._write()))

    # Reading.

    def is_reading(self) -> bool:
        return self._reading.is_set() and not self._closing

    def pause_reading(self) -> None:
        self._reading.clear()

    def resume_reading(self) -> None:
        self._reading.set()

    async def _read(self) -> None:
        async for data in self._tunnel:
            if not self._reading.is_set():
                await self._reading.wait()
            if self._closing:
                return
            self._protocol.data_received(data)
        await self._reading.wait()
        if not self._closing and not self._protocol.eof_received():
            self.close()

    # Writing.

    def write(self, data: bytes | bytearray | memoryview[int]) -> None:
        if self._closing or self._sent_all or not data:
            return
        self._unsent += data
        self._work.set()
        if not self._full and self.get_write_buffer_size() > self._high:
            self._full = True
            self._protocol.pause_writing()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._sent_all = True
        self._work.set()

    def get_write_buffer_size(self) -> int:
        return len(self._unsent) + self._sending

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = _HIGH_WATER if low is None else 4 * low
        if low is None:
            low = high // 4
        if not 0 <= low <= high:
            raise ValueError(f"limits must be in order: 0, low ({low}), high ({high})")
        self._high, self._low = high, low

    async def _write(self) -> None:
        unsent = self._unsent
        while True:
            await self._work.wait()
            self._work.clear()
            while unsent:
                piece = bytes(unsent[:_PIECE])
                del unsent[:_PIECE]
                self._sending = len(piece)
                await self._tunnel.send(piece)
                self._sending = 0
                if self._full and len(unsent) <= self._low:
                    self._full = False
                    self._protocol.resume_writing()
            if self._closing:
                await self._tunnel.close()
                self._end(None)
                return
            if self._sent_all:
                self._tunnel.close_send()

    # The end.

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        """Read nothing more, and end behind what is unsent."""
        if not self._closing:
            self._closing = True
            self._work.set()
            self._reading.set()

    def abort(self) -> None:
        """End at once: what is unsent is dropped, and the member breaks its connection off."""
        self._tunnel.abort("the proxy broke it off")
        self._end(None)

    async def _run(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except arke.TunnelClosed as error:
            self._end(ConnectionResetError(_told(error)))
        except Exception as error:  # noqa: BLE001 — as a loop does with what a protocol raises
            context = {"message": "a protocol raised", "exception": error, "transport": self}
            self._loop.call_exception_handler(context)
            self.abort()

    def _end(self, error: Exception | None) -> None:
        if self._lost:
            return
        self._lost = self._closing = True
        self._unsent.clear()
        self._sending = 0
        self._work.set()
        self._reading.set()
        self._loop.call_soon(self._tell, error)

    def _tell(self, error: Exception | None) -> None:
        self._protocol.connection_lost(error)

    # As any transport.

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast("asyncio.Protocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol


async def connect_through(
    mesh: arke.Mesh,
    member: str,
    protocol: asyncio.BaseProtocol,
    loop: asyncio.AbstractEventLoop,
    seconds: float,
) -> TunnelTransport:
    """Have the member connect to its HTTP server, within so many seconds. Raises OSError."""
    try:
        tunnel = await mesh.http_tunnel(member, timeout=seconds)
    except arke.RemoteError as error:  # it tried, and says how that ended
        kind = _KNOWN.get(error.type, ConnectionError)
        raise kind(_told(error)) from None
    except arke.RequestTimeout:
        raise
    except arke.ArkeError as error:
        raise ConnectionError(_told(error)) from None
    transport = TunnelTransport(tunnel, protocol, loop)
    try:
        await asyncio.sleep(0)  # its end may have come together with it
    except asyncio.CancelledError:
        transport.abort()
        raise
    return transport


def _told(error: Exception) -> str:
    """What another machine says, fit for a line of the log and for an error page."""
    text = str(error)[:_REASON]
    return "".join(c if c.isprintable() else "?" for c in text)
