"""Accepts client connections for TLS, and counts them from the start.

asyncio's own TLS server reports a connection only after its handshake, so that handshakes would not
count towards the connection limits.
"""

from __future__ import annotations

import socket
import ssl
import time

from arke.program.accept_loop import AcceptLoop
from arke_proxy.clients.tls_handshake import TlsHandshake
from arke_proxy.connections.descriptors import NO_DESCRIPTORS, describe_shortage
from arke_proxy.context import ProxyContext
from arke_proxy.errors import TooManyConnections
from arke_proxy.log import warn_limited
from arke_proxy.observability.request_record import refusal

_ACCEPTS_PER_ITERATION = 16


class TlsListener:
    """Accepts connections between `open` and `close`, and starts a handshake on each."""

    def __init__(self, context: ProxyContext, sock: socket.socket, tls: ssl.SSLContext) -> None:
        self._context = context
        self._tls = tls
        self._accept_loop = AcceptLoop(
            context.loop,
            sock,
            lambda accepted, address: self._start_handshake(accepted, address[0]),
            batch=_ACCEPTS_PER_ITERATION,
            on_shortage=self._on_shortage,
        )

    def open(self) -> None:
        """Start accepting; the socket listens already."""
        self._accept_loop.start()

    def accept_from(self, listening: socket.socket, most: int) -> None:
        """Accept up to `most` connections from another socket on the same port."""
        self._accept_loop.accept_from(listening, most)

    def close(self) -> None:
        """Stop accepting and close the socket; does nothing the second time."""
        self._accept_loop.close()

    def _on_shortage(self, error: OSError) -> None:
        warn_limited(NO_DESCRIPTORS, "no file descriptor left", reason=describe_shortage(error))

    def _start_handshake(self, sock: socket.socket, peer: str) -> None:
        context = self._context
        try:
            context.clients.check_room(peer)
        except TooManyConnections as error:  # without TLS the client cannot be sent a response
            warn_limited(TooManyConnections, "client rejected", reason=str(error))
            context.recorder.record(refusal(peer, error, time.monotonic(), answered=False))
            sock.close()
        else:
            TlsHandshake(context, sock, peer, self._tls)
