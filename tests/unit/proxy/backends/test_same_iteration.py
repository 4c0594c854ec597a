"""Data that arrives in the same loop iteration as a request is not taken for its response."""

from __future__ import annotations

import asyncio
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from arke_proxy.backends.address import BackendAddress
from arke_proxy.backends.dialer import Dialer
from arke_proxy.balancing.routes import Route, Routes
from arke_proxy.balancing.static_balancer import StaticBalancer
from arke_proxy.connections.timeouts import TimeLimits
from arke_proxy.context import new_context
from arke_proxy.http.forwarded import ForwardedForm, Forwarding
from arke_proxy.processes.proxy_server import HttpListener, ProxyServer

LIMIT = 20.0
UNEXPECTED = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"


class BackendConnection:
    """Answers with the request target; the test answers `/wait`."""

    def __init__(self) -> None:
        self.writers: list[StreamWriter] = []
        self.waits = asyncio.Event()

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.writers.append(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                target = head.split(b" ")[1]
                if target == b"/wait":
                    self.waits.set()
                else:
                    writer.write(answer(target))


def answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


class Client:
    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def ask(self, target: str, method: str = "GET") -> None:
        """Send a request at once."""
        self.writer.write(f"{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())

    async def body(self) -> bytes:
        head = await self.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        length = next(line for line in head.lower().split(b"\r\n") if b"content-length" in line)
        return await self.reader.readexactly(int(length.partition(b":")[2]))


@asynccontextmanager
async def proxied() -> AsyncIterator[tuple[BackendConnection, Client, Client]]:
    """A backend, a proxy and two clients."""
    loop = asyncio.get_running_loop()
    backend = BackendConnection()
    server = await asyncio.start_server(backend.serve, "127.0.0.1", 0)
    static = StaticBalancer([BackendAddress(*server.sockets[0].getsockname())])
    dialer = Dialer(loop, None, LIMIT, 10)
    forwarding = Forwarding((), ForwardedForm.X, bytes)
    context = new_context(
        loop=loop,
        routes=Routes(Route("web", static)),
        dialer=dialer,
        forwarding=forwarding,
        limits=TimeLimits(),
        max_clients=9,
    )
    proxy = ProxyServer(context)
    sock = socket.create_server(("127.0.0.1", 0))
    address = sock.getsockname()
    await proxy.start(HttpListener(sock))
    async with asyncio.timeout(LIMIT), server:
        clients = [Client(*await asyncio.open_connection(*address)) for _ in range(2)]
        yield backend, clients[0], clients[1]
        for client in clients:
            client.writer.close()
        await proxy.stop(timeout=1.0, idle_timeout=0.0)
        for writer in (*backend.writers, *(client.writer for client in clients)):
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_data_before_the_request_is_not_taken_for_its_response(method: str) -> None:
    async with proxied() as (backend, one, other):
        one.ask("/1")
        assert await one.body() == b"/1"
        one.ask("/2", method)  # this takes the idle connection
        backend.writers[0].write(UNEXPECTED)  # in the same loop iteration
        assert await one.body() == b"/2"
        other.ask("/3")
        assert await other.body() == b"/3"


async def test_half_closed_client_still_gets_its_response() -> None:
    async with proxied() as (backend, one, _):
        one.ask("/wait")
        await backend.waits.wait()
        backend.writers[0].write(answer(b"late"))
        one.writer.write_eof()  # request and EOF arrive before the proxy reads
        assert await one.body() == b"late"
        assert await one.reader.read() == b""
