"""Where clients come by TLS. They are accepted here, not by the loop, which would not count them.

Its own servers tell of a connection when the handshake is done, and until then nobody knows how
many there are.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time

from arke_proxy.clients.tls_handshake import Handshake
from arke_proxy.connections.descriptors import NONE_LEFT, shortage
from arke_proxy.connections.hub import Hub
from arke_proxy.errors import Exhausted
from arke_proxy.observability.request_record import refusal

_AT_ONCE = 16  # connections accepted in one turn of the loop
_REST = 0.1  # seconds without accepting when there is no descriptor; those who come queue


class Doorway:
    """Accepts connections from `open` to `close`, and begins a handshake on each."""

    def __init__(self, hub: Hub, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._hub = hub
        self._sock = sock
        self._context = context
        self._rest: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Begin; the socket listens already."""
        self._sock.setblocking(False)
        self._wait()

    def accept_from(self, listening: socket.socket, most: int) -> None:
        """Accept at most so many of those who wait at a socket, its own or one beside it."""
        for _ in range(most):
            try:
                sock, address = listening.accept()
            except OSError as error:
                if error.errno in NONE_LEFT:
                    self._hub.complaints.warn(NONE_LEFT, shortage(error))
                    self._pause()
                return  # nobody waits, or who did has left
            self._greet(sock, address[0])

    def close(self) -> None:
        """Accept no more, and close the socket, if that is not done yet."""
        if self._sock.fileno() < 0:
            return
        if self._rest:
            self._rest.cancel()
        self._hub.loop.remove_reader(self._sock)
        self._sock.close()

    def _wait(self) -> None:
        self._hub.loop.add_reader(self._sock, self.accept_from, self._sock, _AT_ONCE)

    def _pause(self) -> None:
        self._hub.loop.remove_reader(self._sock)
        if self._rest:
            self._rest.cancel()
        self._rest = self._hub.loop.call_later(_REST, self._wait)

    def _greet(self, sock: socket.socket, peer: str) -> None:
        hub = self._hub
        try:
            hub.check_room(peer)
        except Exhausted as error:  # which it cannot be told
            hub.complaints.warn(Exhausted, str(error))
            hub.recorder.record(refusal(peer, error, time.monotonic(), answered=False))
            sock.close()
        else:
            Handshake(hub, sock, peer, self._context)
