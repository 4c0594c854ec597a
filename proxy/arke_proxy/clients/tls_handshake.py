"""A client's connection by TLS, until it is encrypted and known which protocol was agreed on."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from typing import cast

from arke_proxy.clients.http1_connection import Client
from arke_proxy.clients.http2_connection import Http2Client
from arke_proxy.clients.tls_buffer import attach
from arke_proxy.connections.hub import Hub
from arke_proxy.errors import NoHandshake
from arke_proxy.observability.request_record import refusal


class Handshake(asyncio.Protocol):
    """Counts as a client for as long as it lasts, which is no longer than a head may take.

    Then it leaves the connection to who speaks what the client chose.
    """

    __slots__ = ("_hub", "_over", "_sock", "_task", "due", "peer")

    def __init__(self, hub: Hub, sock: socket.socket, peer: str, context: ssl.SSLContext) -> None:
        """Begin, as `context` says, on a connection that has just been accepted."""
        self.peer = peer  # the client's address
        self._hub = hub
        self._sock = sock
        self._over = False
        hub.came(self)
        self.due = hub.clock() + hub.in_head.seconds
        self._task = hub.loop.create_task(self._run(context))

    # For the server.

    def expired(self) -> None:
        self._note()
        self.cut()

    def part(self) -> None:
        """Close: nobody is answered yet."""
        self.cut()

    def cut(self) -> None:
        self._task.cancel()
        self._sock.close()  # if the loop has not got it yet, which closes it otherwise
        self._end()

    # For the loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Learn that the handshake is done."""
        hub = self._hub
        if self._over:  # it was cut as soon as it had begun
            cast("asyncio.Transport", transport).abort()
            return
        self._over = True
        hub.hands_over(self)
        speaks_2 = transport.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        client = Http2Client(hub) if speaks_2 else Client(hub)
        attach(cast("asyncio.Transport", transport), client)
        client.connection_made(transport)

    # Within.

    async def _run(self, context: ssl.SSLContext) -> None:
        times = self._hub.times
        try:
            await self._hub.loop.connect_accepted_socket(
                lambda: self,
                self._sock,
                ssl=context,
                ssl_handshake_timeout=2 * times.head,  # ends by then, for it counts here
                ssl_shutdown_timeout=times.silence,  # it has to read what was written before
            )
        except ssl.SSLError:
            self._note()
        except OSError:
            pass  # the client has left
        finally:
            self._end()

    def _note(self) -> None:
        self._hub.recorder.record(refusal(self.peer, NoHandshake(), time.monotonic()))

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._hub.went(self)
