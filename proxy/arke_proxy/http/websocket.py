"""Two connections that have left HTTP: what comes from one goes to the other, as it is."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from arke_proxy.clients.graceful_close import unread
from arke_proxy.clients.tls_buffer import attach
from arke_proxy.connections.deadlines import Wait
from arke_proxy.connections.reset import reset

if TYPE_CHECKING:
    from arke_proxy.connections.hub import Hub

_HIGH_WATER = 64 * 1024  # octets that wait in this process for a slow end


class Splice:
    """Joins a client and a backend after an answer 101, until both ends are silent or gone.

    `said` is what the backend has sent already. `ended` is called once, with the octets that went
    to the backend and to the client.
    """

    __slots__ = ("_backend", "_client", "_ended", "_hub", "_said", "_wait", "due", "peer")

    def __init__(
        self,
        hub: Hub,
        backend: asyncio.Transport,
        said: bytes,
        ended: Callable[[int, int], None],
    ) -> None:
        self._hub = hub
        self._said = said
        self._ended = ended
        self._backend = _End(self, backend)
        self._client: _End
        self.peer = ""
        self._wait: Wait | None = None  # since an end was closed
        self.due = math.inf

    def join(self, client: asyncio.Transport, peer: str, early: bytes) -> None:
        """Begin. `early` is what the client has sent meanwhile."""
        hub = self._hub
        self.peer = peer
        self._client = _End(self, client)
        self._client.other, self._backend.other = self._backend, self._client
        hub.came(self)
        self.moved()
        for end, data in ((self._client, early), (self._backend, self._said)):
            end.begin(data)

    def moved(self) -> None:
        """Give both ends their full time again, unless they are closed."""
        if not self._wait:
            self.due = self._hub.clock() + self._hub.times.spliced

    def close(self, end: _End) -> None:
        """Close an end, and soon after both; what was written is read first, if it is read."""
        end.transport.close()
        if not self._wait:
            self._put_under(self._hub.lingering)

    def over(self) -> None:
        """Forget a splice whose ends are both gone."""
        if not (self._client.open or self._backend.open):
            self._hub.went(self)
            self._ended(self._client.octets, self._backend.octets)

    # For the hub.

    def part(self) -> None:
        """Nothing says where a good place to stop would be: it goes on while there is time."""

    def cut(self) -> None:
        reset(self._client.transport)
        reset(self._backend.transport)

    def expired(self) -> None:
        client = self._client
        if not self._wait or self._wait is self._hub.running:
            self.cut()
            return
        self._put_under(self._hub.running)
        if client.open and not unread(client.transport):  # it is deaf, not slow
            client.transport.abort()

    # Within.

    def _put_under(self, wait: Wait) -> None:
        self._wait = wait
        self.due = self._hub.clock() + wait.seconds


class _End:
    """One of the two connections; a protocol of the loop's."""

    __slots__ = ("_splice", "finished", "octets", "open", "other", "transport")

    def __init__(self, splice: Splice, transport: asyncio.Transport) -> None:
        self._splice = splice
        self.finished = False  # it sends no more
        self.transport = transport
        self.other: _End
        self.octets = 0  # that came from here
        self.open = True

    def begin(self, data: bytes) -> None:
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
        self.octets += len(data)
        self._splice.moved()
        transport = self.other.transport
        if not transport.is_closing():
            transport.write(data)

    def pause_writing(self) -> None:
        self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        self._splice.moved()
        if self.other.open:
            self.other.transport.resume_reading()

    def eof_received(self) -> bool:
        self.finished = True
        other = self.other
        if other.finished or not other.transport.can_write_eof():
            self._splice.close(other)
            return False
        other.transport.write_eof()
        return self.transport.can_write_eof()  # TLS has no half of a connection

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if exc:
            reset(self.other.transport)
        else:
            self._splice.close(self.other)
        self._splice.over()
