"""Accepts client connections for TLS, and counts them from the start.

asyncio's own TLS server reports a connection only after its handshake, so that handshakes would not
count towards the connection limits.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time

from arke_proxy.clients.tls_handshake import TlsHandshake
from arke_proxy.connections.descriptors import NO_DESCRIPTORS, describe_shortage
from arke_proxy.context import ProxyContext
from arke_proxy.errors import TooManyConnections
from arke_proxy.observability.request_record import refusal

_ACCEPTS_PER_ITERATION = 16
_PAUSE = 0.1  # seconds without accepting when no descriptor is free; connections wait in the queue


class TlsListener:
    """Accepts connections between `open` and `close`, and starts a handshake on each."""

    def __init__(self, context: ProxyContext, sock: socket.socket, tls: ssl.SSLContext) -> None:
        self._context = context
        self._sock = sock
        self._tls = tls
        self._resume_timer: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Start accepting; the socket listens already."""
        self._sock.setblocking(False)
        self._add_reader()

    def accept_from(self, listening: socket.socket, most: int) -> None:
        """Accept up to `most` connections from this socket or another one on the same port."""
        for _ in range(most):
            try:
                sock, address = listening.accept()
            except OSError as error:
                if error.errno in NO_DESCRIPTORS:
                    self._context.warnings.warn(NO_DESCRIPTORS, describe_shortage(error))
                    self._pause()
                return  # no connection is waiting, or its client has disconnected
            self._start_handshake(sock, address[0])

    def close(self) -> None:
        """Stop accepting and close the socket; does nothing the second time."""
        if self._sock.fileno() < 0:
            return
        if self._resume_timer:
            self._resume_timer.cancel()
        self._context.loop.remove_reader(self._sock)
        self._sock.close()

    def _add_reader(self) -> None:
        self._context.loop.add_reader(
            self._sock, self.accept_from, self._sock, _ACCEPTS_PER_ITERATION
        )

    def _pause(self) -> None:
        self._context.loop.remove_reader(self._sock)
        if self._resume_timer:
            self._resume_timer.cancel()
        self._resume_timer = self._context.loop.call_later(_PAUSE, self._add_reader)

    def _start_handshake(self, sock: socket.socket, peer: str) -> None:
        context = self._context
        try:
            context.clients.check_room(peer)
        except TooManyConnections as error:  # without TLS the client cannot be sent a response
            context.warnings.warn(TooManyConnections, str(error))
            context.recorder.record(refusal(peer, error, time.monotonic(), answered=False))
            sock.close()
        else:
            TlsHandshake(context, sock, peer, self._tls)
