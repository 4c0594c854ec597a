"""The TLS handshake of a client connection; afterwards ALPN selects HTTP/1.1 or HTTP/2."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from typing import cast

from arke_proxy.clients.http1_connection import Http1Connection
from arke_proxy.clients.http2_connection import Http2Connection
from arke_proxy.connections.client_state import CLOSED, HANDSHAKE
from arke_proxy.connections.tls_buffer import attach
from arke_proxy.context import ProxyContext
from arke_proxy.errors import TlsHandshakeFailed
from arke_proxy.observability.request_record import refusal


class TlsHandshake(asyncio.Protocol):
    """Counts as a client connection until the handshake ends, then hands the connection over.

    The time limit is that of a request head.
    """

    __slots__ = ("_context", "_sock", "_task", "peer", "timer")

    def __init__(
        self, context: ProxyContext, sock: socket.socket, peer: str, tls: ssl.SSLContext
    ) -> None:
        """Start on a connection that has just been accepted."""
        self.peer = peer  # the client's IP address
        self._context = context
        self._sock = sock
        self.timer = context.timeouts.timer(HANDSHAKE)
        context.clients.add(self)
        self._task = context.loop.create_task(self._run(tls))

    # As a client connection.

    def timed_out(self) -> None:
        self._record_failure()
        self.abort()

    def shut_down(self) -> None:
        """Close: no request has been read."""
        self.abort()

    def abort(self) -> None:
        self._task.cancel()
        self._sock.close()  # needed if the event loop has not taken the socket yet
        self._close()

    # As an asyncio protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hand over: the handshake is complete."""
        context = self._context
        if self.timer.state is CLOSED:  # aborted just before
            cast("asyncio.Transport", transport).abort()
            return
        self.timer.enter(CLOSED)
        context.clients.hand_over(self)
        is_http2 = transport.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        client = Http2Connection(context) if is_http2 else Http1Connection(context)
        attach(cast("asyncio.Transport", transport), client)
        client.connection_made(transport)

    # Internals.

    async def _run(self, tls: ssl.SSLContext) -> None:
        limits = self._context.timeouts.limits
        try:
            await self._context.loop.connect_accepted_socket(
                lambda: self,
                self._sock,
                ssl=tls,
                ssl_handshake_timeout=2 * limits.request_head,  # `timer` ends it earlier
                ssl_shutdown_timeout=limits.progress,  # the client first reads what was written
            )
        except ssl.SSLError:
            self._record_failure()
        except OSError:
            pass  # the client has disconnected
        finally:
            self._close()

    def _record_failure(self) -> None:
        record = refusal(self.peer, TlsHandshakeFailed(), time.monotonic())
        self._context.recorder.record(record)

    def _close(self) -> None:
        if self.timer.state is HANDSHAKE:
            self.timer.enter(CLOSED)
            self._context.clients.remove(self)
