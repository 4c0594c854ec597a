"""A backend that closes or sends data before the request: another backend gets the request."""

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
Serve = Callable[[StreamReader, StreamWriter], object]


class SlowDialer(Dialer):
    """Connects so slowly that the early close or data of a backend arrives first."""

    hasty: BackendAddress
    slow: bool

    async def connect(
        self, address: BackendAddress, make: Callable[[socket.socket | None], P]
    ) -> P:
        sockets: list[socket.socket] = []

        def keep(sock: socket.socket | None) -> P:
            assert sock
            sockets.append(sock)
            return make(sock)

        protocol = await super().connect(address, keep)
        if address == self.hasty and self.slow:
            while sockets[0].fileno() >= 0 and not select.select(sockets, [], [], 0)[0]:
                await asyncio.sleep(0)
        return protocol


async def ends(_: StreamReader, writer: StreamWriter) -> None:
    writer.close()


async def speaks(reader: StreamReader, writer: StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad")
    await reader.read()
    writer.close()


async def answers(reader: StreamReader, writer: StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nwell")
    writer.close()


async def serving(serve: Serve) -> tuple[asyncio.Server, BackendAddress]:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, BackendAddress(*server.sockets[0].getsockname())


@pytest.mark.parametrize(("hasty", "slow"), [(ends, True), (speaks, True), (speaks, False)])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_unsent_request_is_retried_on_another_backend(
    method: str, hasty: Serve, slow: bool
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
    one, dialer.hasty = await serving(hasty)
    other, well = await serving(answers)
    for address in (dialer.hasty, well):
        rotation.add(address)
    async with asyncio.timeout(LIMIT), one, other:
        sock = socket.create_server(("127.0.0.1", 0))
        await proxy.start(HttpListener(sock))
        reader, writer = await asyncio.open_connection(*sock.getsockname())
        writer.write(f"{method} / HTTP/1.0\r\nContent-Length: 0\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        await proxy.stop(timeout=1.0, idle_timeout=0.0)
    assert answer.endswith(b"\r\n\r\nwell")
    reason = "connecting to it failed"
    assert warnings == [f"backend ejected from rotation backend={dialer.hasty} reason={reason}"]
