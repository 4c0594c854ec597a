"""Backend data that arrives in the loop iteration that sends a request is not its response."""

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


class EchoBackend:
    """Responds with the request target. The test itself responds to `/wait`."""

    def __init__(self) -> None:
        self.writers: list[StreamWriter] = []
        self.wait_requested = asyncio.Event()

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.writers.append(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                target = head.split(b" ")[1]
                if target == b"/wait":
                    self.wait_requested.set()
                else:
                    writer.write(ok(target))


def ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


class Client:
    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, target: str, method: str = "GET") -> None:
        """Send a request without waiting."""
        self.writer.write(f"{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())

    async def read_body(self) -> bytes:
        """Read a 200 response; return its body."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        length = next(line for line in head.lower().split(b"\r\n") if b"content-length" in line)
        return await self.reader.readexactly(int(length.partition(b":")[2]))


@asynccontextmanager
async def proxy_with_clients() -> AsyncIterator[tuple[EchoBackend, Client, Client]]:
    """A proxy with one backend, and two clients that are connected to it."""
    loop = asyncio.get_running_loop()
    backend = EchoBackend()
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
    async with proxy_with_clients() as (backend, first, second):
        first.send("/1")
        assert await first.read_body() == b"/1"
        first.send("/2", method)  # this takes the idle connection
        backend.writers[0].write(UNEXPECTED)  # in the same loop iteration
        assert await first.read_body() == b"/2"
        second.send("/3")
        assert await second.read_body() == b"/3"


async def test_half_closed_client_still_gets_its_response() -> None:
    async with proxy_with_clients() as (backend, client, _):
        client.send("/wait")
        await backend.wait_requested.wait()
        backend.writers[0].write(ok(b"late"))
        client.writer.write_eof()  # request and EOF arrive before the proxy reads
        assert await client.read_body() == b"late"
        assert await client.reader.read() == b""
