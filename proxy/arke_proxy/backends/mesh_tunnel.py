"""A tunnel to a backend through the mesh, as an asyncio transport."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import cast

import arke

_MAX_MESSAGE = 64 * 1024  # bytes; the member accepts no more
_HIGH_WATER = 64 * 1024  # bytes in the write buffer, by default
_MAX_REASON = 100  # characters of an error text from another machine

_ERROR_TYPES = {kind.__name__: kind for kind in (ConnectionRefusedError, TimeoutError)}


class TunnelTransport(asyncio.Transport):
    """Carries bytes through a tunnel. To its protocol it behaves like a socket transport.

    One task reads and one writes. The writes of one loop iteration are sent in as few messages as
    possible. While reading is paused at most one received message is kept.
    """

    def __init__(
        self, tunnel: arke.Tunnel, protocol: asyncio.BaseProtocol, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__()
        self._tunnel = tunnel
        self._protocol = cast("asyncio.Protocol", protocol)
        self._loop = loop
        self._unsent = bytearray()
        self._sending = 0  # bytes taken from `_unsent` that wait for the member's credit
        self._high, self._low = _HIGH_WATER, _HIGH_WATER // 4
        self._full = False  # `pause_writing` was called on the protocol
        self._write_event = asyncio.Event()  # wakes the writer
        self._reading = asyncio.Event()
        self._reading.set()
        self._eof = False  # `write_eof` was called
        self._closing = False
        self._ended = False
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
        if self._closing or self._eof or not data:
            return
        self._unsent += data
        self._write_event.set()
        if not self._full and self.get_write_buffer_size() > self._high:
            self._full = True
            self._protocol.pause_writing()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._eof = True
        self._write_event.set()

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
            await self._write_event.wait()
            self._write_event.clear()
            while unsent:
                piece = bytes(unsent[:_MAX_MESSAGE])
                del unsent[:_MAX_MESSAGE]
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
            if self._eof:
                self._tunnel.close_send()

    # Closing.

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        """Stop reading, send what is buffered, then close."""
        if not self._closing:
            self._closing = True
            self._write_event.set()
            self._reading.set()

    def abort(self) -> None:
        """Close at once: drop what is unsent; the member resets its connection."""
        self._tunnel.abort("aborted by the proxy")
        self._end(None)

    async def _run(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except arke.TunnelClosed as error:
            self._end(ConnectionResetError(_sanitise(error)))
        except Exception as error:  # noqa: BLE001 — as event loops handle a protocol's exceptions
            context = {
                "message": "the protocol of a tunnel raised an exception",
                "exception": error,
                "transport": self,
            }
            self._loop.call_exception_handler(context)
            self.abort()

    def _end(self, error: Exception | None) -> None:
        if self._ended:
            return
        self._ended = self._closing = True
        self._unsent.clear()
        self._sending = 0
        self._write_event.set()
        self._reading.set()
        self._loop.call_soon(self._notify, error)

    def _notify(self, error: Exception | None) -> None:
        self._protocol.connection_lost(error)

    # Other methods of a transport.

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast("asyncio.Protocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol


async def connect_through(
    mesh: arke.Mesh,
    member: str,
    protocol: asyncio.BaseProtocol,
    loop: asyncio.AbstractEventLoop,
    timeout: float,  # noqa: ASYNC109
) -> TunnelTransport:
    """Open a tunnel to a member's HTTP server, within `timeout` seconds. Raises OSError."""
    try:
        tunnel = await mesh.http_tunnel(member, timeout=timeout)
    except arke.RemoteError as error:  # the member could not connect
        kind = _ERROR_TYPES.get(error.type, ConnectionError)
        raise kind(_sanitise(error)) from None
    except arke.RequestTimeout:
        raise
    except arke.ArkeError as error:
        raise ConnectionError(_sanitise(error)) from None
    transport = TunnelTransport(tunnel, protocol, loop)
    try:
        await asyncio.sleep(0)  # the reader task notices a tunnel that is closed already
    except asyncio.CancelledError:
        transport.abort()
        raise
    return transport


def _sanitise(error: Exception) -> str:
    """Return an error text from another machine, short and printable, for a log and a page."""
    text = str(error)[:_MAX_REASON]
    return "".join(c if c.isprintable() else "?" for c in text)
