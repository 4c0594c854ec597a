"""WebSocket and other upgrades: after a 101 response, bytes are relayed in both directions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from arke_proxy.connections.client_state import LINGERING, LINGERING_SLOW, UPGRADED
from arke_proxy.connections.graceful_close import linger_timed_out
from arke_proxy.connections.reset import reset
from arke_proxy.connections.tls_buffer import attach

if TYPE_CHECKING:
    from arke_proxy.context import ProxyContext

_HIGH_WATER = 64 * 1024  # bytes that are buffered in this process for a slow end


class Splice:
    """Relays bytes between a client and a backend until both have closed, or the time limit passes.

    `from_backend` is what the backend has sent after its 101. `on_closed` is called once, with the
    number of bytes sent to the backend, and to the client.
    """

    __slots__ = ("_backend", "_client", "_context", "_from_backend", "_on_closed", "peer", "timer")

    def __init__(
        self,
        context: ProxyContext,
        backend: asyncio.Transport,
        from_backend: bytes,
        on_closed: Callable[[int, int], None],
    ) -> None:
        self._context = context
        self._from_backend = from_backend
        self._on_closed = on_closed
        self._backend = SpliceEnd(self, backend)
        self._client: SpliceEnd
        self.peer = ""
        self.timer = context.timeouts.timer(UPGRADED)

    def start(self, client: asyncio.Transport, peer: str, from_client: bytes) -> None:
        """Relay from now on. `from_client` is what the client has sent after its request."""
        self.peer = peer
        self._client = SpliceEnd(self, client)
        self._client.other, self._backend.other = self._backend, self._client
        self._context.clients.add(self)
        self.timer.restart()
        for end, data in ((self._client, from_client), (self._backend, self._from_backend)):
            end.start(data)

    def progressed(self) -> None:
        """Restart the time limit, unless an end is closing."""
        if self.timer.state is UPGRADED:
            self.timer.restart()

    def close(self, end: SpliceEnd) -> None:
        """Close an end once its data is sent; limit the time until both ends are closed."""
        end.transport.close()
        if self.timer.state is UPGRADED:
            self.timer.enter(LINGERING)

    def end_closed(self) -> None:
        """Report the end of the splice once both ends are closed."""
        if not (self._client.open or self._backend.open):
            self._context.clients.remove(self)
            self._on_closed(self._client.received, self._backend.received)

    # As a client connection.

    def shut_down(self) -> None:
        """Do nothing: the proxy cannot know where the upgraded protocol may end."""

    def abort(self) -> None:
        reset(self._client.transport)
        reset(self._backend.transport)

    def timed_out(self) -> None:
        if self.timer.state is not LINGERING:
            self.abort()
        elif self._client.open:
            linger_timed_out(self._client.transport, self.timer)
        else:  # the backend gets as much time as a client would
            self.timer.enter(LINGERING_SLOW)


class SpliceEnd:
    """One of the two connections: an asyncio protocol."""

    __slots__ = ("_splice", "eof", "open", "other", "received", "transport")

    def __init__(self, splice: Splice, transport: asyncio.Transport) -> None:
        self._splice = splice
        self.eof = False  # this end sends no more
        self.transport = transport
        self.other: SpliceEnd
        self.received = 0  # bytes
        self.open = True

    def start(self, data: bytes) -> None:
        transport = self.transport
        attach(transport, self)
        transport.set_write_buffer_limits(high=_HIGH_WATER)
        if data:
            self.data_received(data)
        if self.other.transport.get_write_buffer_size() <= _HIGH_WATER:
            transport.resume_reading()
        if transport.is_closing():
            self._splice.close(self.other)

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        self._splice.progressed()
        transport = self.other.transport
        if not transport.is_closing():
            transport.write(data)

    def pause_writing(self) -> None:
        self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        self._splice.progressed()
        if self.other.open:
            self.other.transport.resume_reading()

    def eof_received(self) -> bool:
        self.eof = True
        other = self.other
        if other.eof or not other.transport.can_write_eof():
            self._splice.close(other)
            return False
        other.transport.write_eof()
        return self.transport.can_write_eof()  # TLS has no half-closed connections

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if exc:
            reset(self.other.transport)
        else:
            self._splice.close(self.other)
        self._splice.end_closed()
