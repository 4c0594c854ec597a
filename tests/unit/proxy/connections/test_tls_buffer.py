from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop

from arke_proxy.connections.tls_buffer import attach
from support.certificates import write_certificate
from support.waiting import LIMIT


class Client:
    """The attached protocol: collects the received data."""

    def __init__(self) -> None:
        self.data = b""
        self.ended = asyncio.Event()
        self.transport: asyncio.Transport

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.ended.set()


class Handshake(asyncio.Protocol):
    def __init__(self, clients: list[Client]) -> None:
        self._clients = clients

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        client = Client()
        client.transport = cast("asyncio.Transport", transport)
        attach(client.transport, client)
        self._clients.append(client)


ClientScript = Callable[[ssl.SSLSocket], None]


class TlsServer:
    """Accepts TLS connections; `serve` runs one client to its end."""

    def __init__(self, folder: Path) -> None:
        certificate, key = write_certificate(folder, "a.example").split(",")
        self._server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._server.load_cert_chain(certificate, key)
        self._client = ssl.create_default_context(cafile=certificate)
        self._listening: asyncio.Server
        self._clients: list[Client] = []

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._listening = await loop.create_server(
            lambda: Handshake(self._clients), "127.0.0.1", 0, ssl=self._server
        )

    async def serve(self, script: ClientScript) -> Client:
        await asyncio.to_thread(self._run_client, script)
        async with asyncio.timeout(LIMIT):
            while not self._clients:
                await asyncio.sleep(0)
            client = self._clients.pop()
            await client.ended.wait()
        return client

    def close(self) -> None:
        self._listening.close()

    def _run_client(self, script: ClientScript) -> None:
        plain = socket.create_connection(self._listening.sockets[0].getsockname(), LIMIT)
        with self._client.wrap_socket(plain, server_hostname="a.example") as sock:
            script(sock)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(4096):  # closing with unread data would reset the connection
                pass


def run(folder: Path, work: Callable[[TlsServer], Any]) -> None:
    async def run_server() -> None:
        server = TlsServer(folder)
        await server.open()
        try:
            await work(server)
        finally:
            server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run_server())


@contextmanager
def no_collection() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.parametrize("record", [16384, 1000], ids=["large records", "small records"])
def test_all_data_before_tls_close_is_received(tmp_path: Path, record: int) -> None:
    async def work(server: TlsServer) -> None:
        for size in range(60_000, 900_000, 7001):
            data = bytes(range(256)) * (size // 256)

            def script(sock: ssl.SSLSocket, data: bytes = data) -> None:
                for at in range(0, len(data), record):
                    sock.sendall(data[at : at + record])

            assert (await server.serve(script)).data == data

    run(tmp_path, work)


def test_closed_connection_is_freed_without_garbage_collection(tmp_path: Path) -> None:
    async def work(server: TlsServer) -> None:
        client = await server.serve(lambda sock: sock.sendall(b"x"))
        assert client.data == b"x"
        left = weakref.ref(client)
        del client
        await asyncio.sleep(0)
        assert left() is None

    with no_collection():
        run(tmp_path, work)
