"""A backend closes the new connection, or sends data, before the request: the proxy retries."""

from __future__ import annotations

import asyncio
import select
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from typing import TypeVar

import pytest

from arke_proxy.backends.address import BackendAddress
from arke_proxy.backends.dialer import Dialer
from arke_proxy.balancing.rotation import Rotation
from arke_proxy.balancing.routes import Route, Routes
from arke_proxy.connections.timeouts import TimeLimits
from arke_proxy.context import new_context
from arke_proxy.http.forwarded import ForwardedForm, Forwarding
from arke_proxy.processes.proxy_server import HttpListener, ProxyServer
from support.recorded_warnings import RecordedWarnings

LIMIT = 20.0
P = TypeVar("P", bound=asyncio.Protocol)
Script = Callable[[StreamReader, StreamWriter], object]


class SlowDialer(Dialer):
    """Returns a connection to `early_backend` only after its close or data has arrived.

    If not `slow`, connections are returned at once.
    """

    early_backend: BackendAddress
    slow: bool

    async def connect(
        self, address: BackendAddress, make: Callable[[socket.socket | None], P]
    ) -> P:
        sockets: list[socket.socket] = []

        def record_socket(sock: socket.socket | None) -> P:
            assert sock
            sockets.append(sock)
            return make(sock)

        protocol = await super().connect(address, record_socket)
        if address == self.early_backend and self.slow:
            while sockets[0].fileno() >= 0 and not select.select(sockets, [], [], 0)[0]:
                await asyncio.sleep(0)
        return protocol


async def close_at_once(_: StreamReader, writer: StreamWriter) -> None:
    writer.close()


async def respond_without_request(reader: StreamReader, writer: StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad")
    await reader.read()
    writer.close()


async def respond(reader: StreamReader, writer: StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\ngood")
    writer.close()


async def start_backend(script: Script) -> tuple[asyncio.Server, BackendAddress]:
    server = await asyncio.start_server(script, "127.0.0.1", 0)
    return server, BackendAddress(*server.sockets[0].getsockname())


@pytest.mark.parametrize(
    ("early_script", "slow"),
    [(close_at_once, True), (respond_without_request, True), (respond_without_request, False)],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_unsent_request_is_retried_on_another_backend(
    method: str, early_script: Script, slow: bool
) -> None:
    loop = asyncio.get_running_loop()
    warnings = RecordedWarnings()
    rotation = Rotation("web", warnings, draw=lambda: 0.0)
    dialer = SlowDialer(loop, None, LIMIT, 10)
    dialer.slow = slow
    forwarding = Forwarding((), ForwardedForm.X, bytes)
    context = new_context(
        loop=loop,
        routes=Routes(Route("web", rotation)),
        dialer=dialer,
        forwarding=forwarding,
        limits=TimeLimits(),
        max_clients=9,
    )
    proxy = ProxyServer(context)
    early_server, dialer.early_backend = await start_backend(early_script)
    server, address = await start_backend(respond)
    for backend in (dialer.early_backend, address):
        rotation.add(backend)
    async with asyncio.timeout(LIMIT), early_server, server:
        sock = socket.create_server(("127.0.0.1", 0))
        await proxy.start(HttpListener(sock))
        reader, writer = await asyncio.open_connection(*sock.getsockname())
        writer.write(f"{method} / HTTP/1.0\r\nContent-Length: 0\r\n\r\n".encode())
        response = await reader.read()
        writer.close()
        await proxy.stop(timeout=1.0, idle_timeout=0.0)
    assert response.endswith(b"\r\n\r\ngood")
    reason = "connecting to it failed"
    assert warnings == [
        f"backend ejected from rotation backend={dialer.early_backend} reason={reason}"
    ]
