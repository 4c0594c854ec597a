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


class ReceivingProtocol:
    """The protocol that `attach` connects to the transport; it collects the received data."""

    def __init__(self) -> None:
        self.data = b""
        self.closed = asyncio.Event()
        self.transport: asyncio.Transport

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.closed.set()


class HandshakeProtocol(asyncio.Protocol):
    """Attaches a ReceivingProtocol once the handshake is complete."""

    def __init__(self, receivers: list[ReceivingProtocol]) -> None:
        self._receivers = receivers

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        receiver = ReceivingProtocol()
        receiver.transport = cast("asyncio.Transport", transport)
        attach(receiver.transport, receiver)
        self._receivers.append(receiver)


ClientScript = Callable[[ssl.SSLSocket], None]


class TlsServer:
    """A TLS server; `serve` runs one client until its connection is closed."""

    def __init__(self, folder: Path) -> None:
        certificate, key = write_certificate(folder, "a.example").split(",")
        self._server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._server_context.load_cert_chain(certificate, key)
        self._client_context = ssl.create_default_context(cafile=certificate)
        self._server: asyncio.Server
        self._receivers: list[ReceivingProtocol] = []

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: HandshakeProtocol(self._receivers), "127.0.0.1", 0, ssl=self._server_context
        )

    async def serve(self, script: ClientScript) -> ReceivingProtocol:
        await asyncio.to_thread(self._run_client, script)
        async with asyncio.timeout(LIMIT):
            while not self._receivers:
                await asyncio.sleep(0)
            receiver = self._receivers.pop()
            await receiver.closed.wait()
        return receiver

    def close(self) -> None:
        self._server.close()

    def _run_client(self, script: ClientScript) -> None:
        plain = socket.create_connection(self._server.sockets[0].getsockname(), LIMIT)
        with self._client_context.wrap_socket(plain, server_hostname="a.example") as sock:
            script(sock)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(4096):  # closing with unread data would reset the connection
                pass


def run_with_server(folder: Path, test: Callable[[TlsServer], Any]) -> None:
    async def run_server() -> None:
        server = TlsServer(folder)
        await server.open()
        try:
            await test(server)
        finally:
            server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run_server())


@contextmanager
def garbage_collection_disabled() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.parametrize("record_size", [16384, 1000], ids=["large records", "small records"])
def test_all_data_before_tls_close_is_received(tmp_path: Path, record_size: int) -> None:
    async def check(server: TlsServer) -> None:
        for size in range(60_000, 900_000, 7001):
            data = bytes(range(256)) * (size // 256)

            def script(sock: ssl.SSLSocket, data: bytes = data) -> None:
                for at in range(0, len(data), record_size):
                    sock.sendall(data[at : at + record_size])

            assert (await server.serve(script)).data == data

    run_with_server(tmp_path, check)


def test_closed_connection_is_freed_without_garbage_collection(tmp_path: Path) -> None:
    async def check(server: TlsServer) -> None:
        receiver = await server.serve(lambda sock: sock.sendall(b"x"))
        assert receiver.data == b"x"
        reference = weakref.ref(receiver)
        del receiver
        await asyncio.sleep(0)
        assert reference() is None

    with garbage_collection_disabled():
        run_with_server(tmp_path, check)
