"""WebSockets through the proxy, and upgrades that backends decline."""

from __future__ import annotations

import asyncio
import hashlib
import json
import select
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import pytest
from aiohttp import ClientSession, WSMsgType, web

from support.admin_pages import fetch
from support.backend_scripts import UPGRADE_RESPONSE
from support.backends import Backend, respond_ok
from support.connection import Connection
from support.ports import free_port
from support.proxy_harness import ProxyHarness
from support.proxy_process import start_proxy
from support.waiting import LIMIT

UPGRADE_REQUEST = (
    b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\r\n"
)
MIB = 1 << 20


@asynccontextmanager
async def echo_server(close_codes: list[int | None]) -> AsyncIterator[str]:
    """A WebSocket backend that echoes messages: text in upper case, binary data as it is.

    It appends the close code of each client to `close_codes`.
    """

    async def echo(request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse(max_msg_size=0)
        await websocket.prepare(request)
        async for message in websocket:
            if message.type is WSMsgType.TEXT:
                await websocket.send_str(message.data.upper())
            else:
                await websocket.send_bytes(message.data)
        close_codes.append(websocket.close_code)
        return websocket

    app = web.Application()
    app.router.add_get("/ws", echo)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_websocket_echo(harness: ProxyHarness) -> None:
    close_codes: list[int | None] = []
    large = hashlib.shake_256(b"large").digest(5 * MIB)
    async with echo_server(close_codes) as address, ClientSession() as session:
        harness.cluster.answers = [address]
        async with asyncio.timeout(LIMIT):
            url = f"http://127.0.0.1:{harness.port}/ws"
            async with session.ws_connect(url, max_msg_size=0) as websocket:
                for text in ("hello", "", "ü" * 1000):
                    await websocket.send_str(text)
                    assert await websocket.receive_str() == text.upper()
                await websocket.send_bytes(large)
                assert await websocket.receive_bytes() == large
                await websocket.ping()
                assert await websocket.close(code=4000)
    assert close_codes == [4000]


def test_data_sent_with_101_is_not_lost(harness: ProxyHarness) -> None:
    """The backend sends data with its 101. The client sends data before it receives the 101."""
    heads = []

    def script(connection: Connection) -> None:
        heads.append(connection.read_head())
        connection.send(UPGRADE_RESPONSE + b"first")
        connection.send(connection.read_exactly(5)[::-1])

    harness.start_backends(script)
    connection = harness.connect()
    connection.send(UPGRADE_REQUEST + b"early")
    head = connection.read_head().lower()
    assert head.startswith(b"http/1.1 101 ")
    assert b"\r\nupgrade: websocket\r\n" in head
    assert b"\r\nconnection: upgrade\r\n" in head
    assert connection.read_exactly(10) == b"firstylrae"
    assert b"\r\nconnection: upgrade\r\n" in heads[0].lower()
    assert b"\r\nupgrade: websocket\r\n" in heads[0].lower()


@pytest.mark.parametrize("first", ["client", "backend"])
def test_each_direction_closes_separately(harness: ProxyHarness, first: str) -> None:
    backend_done = threading.Event()

    def half_close(connection: Connection) -> None:
        connection.sock.shutdown(socket.SHUT_WR)

    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(UPGRADE_RESPONSE)
        if first == "client":
            assert connection.read_to_end() == b"from client"
            connection.send(b"from backend")
        else:
            connection.send(b"from backend")
            half_close(connection)
            assert connection.read_to_end() == b"from client"
        backend_done.set()

    harness.start_backends(script)
    connection = harness.connect()
    connection.send(UPGRADE_REQUEST)
    connection.read_head()
    if first == "client":
        connection.send(b"from client")
        half_close(connection)
        assert connection.read_to_end() == b"from backend"
    else:
        assert connection.read_to_end() == b"from backend"
        connection.send(b"from client")
        half_close(connection)
    assert backend_done.wait(LIMIT)


def test_backend_crash_resets_websocket(harness: ProxyHarness) -> None:
    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(UPGRADE_RESPONSE)
        connection.read_exactly(1)
        connection.reset()

    harness.start_backends(script)
    connection = harness.connect()
    connection.send(UPGRADE_REQUEST)
    connection.read_head()
    connection.send(b"x")
    with pytest.raises(ConnectionResetError):
        connection.read_to_end()


@pytest.mark.alone
def test_slow_reader_slows_sender(harness: ProxyHarness) -> None:
    size = 48 * MIB
    data = hashlib.shake_256(b"splice").digest(size)
    stalled = threading.Event()
    digests = []

    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(UPGRADE_RESPONSE)
        assert stalled.wait(LIMIT)
        digest = hashlib.sha256()
        for _ in range(size // MIB):
            digest.update(connection.read_exactly(MIB))
        digests.append(digest.digest())
        connection.send(b"end")

    harness.start_backends(script)
    connection = harness.connect()
    connection.send(UPGRADE_REQUEST)
    connection.read_head()
    before = harness.memory
    sent = 0
    connection.sock.setblocking(False)
    while select.select([], [connection.sock], [], 1.0)[1]:
        sent += connection.sock.send(data[sent : sent + MIB])
        assert sent < size, "the proxy accepted all data: no backpressure"
    assert harness.memory - before < 2 * MIB
    stalled.set()
    connection.sock.settimeout(LIMIT)
    connection.send(data[sent:])
    assert connection.read_exactly(3) == b"end"
    assert digests == [hashlib.sha256(data).digest()]


def test_response_of_backend_that_declines_upgrade_is_forwarded(harness: ProxyHarness) -> None:
    harness.start_backends(respond_ok)
    connection = harness.connect()
    for _ in range(2):
        connection.send(UPGRADE_REQUEST)
        assert connection.read_response()[1] == b"ok"


INVALID_UPGRADES = {
    "no Upgrade": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "Upgrade not named in Connection": b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
    "another protocol": UPGRADE_REQUEST.replace(b"WebSocket", b"h2c"),
    "several protocols": UPGRADE_REQUEST.replace(b"WebSocket", b"websocket, other"),
    "HTTP/1.0": UPGRADE_REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "with a body": UPGRADE_REQUEST.replace(b"\r\n\r\n", b"\r\nContent-Length: 1\r\n\r\nx"),
    "not a GET": UPGRADE_REQUEST.replace(b"GET", b"POST"),
}


@pytest.mark.parametrize("request_", INVALID_UPGRADES.values(), ids=INVALID_UPGRADES)
def test_101_without_valid_upgrade_request_is_rejected(
    harness: ProxyHarness, request_: bytes
) -> None:
    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(UPGRADE_RESPONSE + b"smuggled")
        connection.read_to_end()

    harness.start_backends(script)
    response, body = harness.exchange(request_)
    assert response.status == 502
    assert b"smuggled" not in body


def test_101_ends_ejection_immediately() -> None:
    """The 101 itself counts as success. The end of the WebSocket may be hours later."""
    connection_numbers = iter(range(100))

    def fail_first_then_upgrade(connection: Connection) -> None:
        assert connection.read_head()
        if next(connection_numbers):
            connection.send(UPGRADE_RESPONSE)
            connection.read_to_end()

    backend = Backend(fail_first_then_upgrade)
    admin_port = free_port()
    flags = ["-choose", "static", "-backend", backend.address, "-admin", f"127.0.0.1:{admin_port}"]
    process, port = start_proxy(*flags)
    cleanups = ExitStack()
    try:
        for status_line in (b"HTTP/1.1 502", b"HTTP/1.1 101"):
            connection = Connection(socket.create_connection(("127.0.0.1", port), LIMIT))
            cleanups.callback(connection.close)
            connection.send(UPGRADE_REQUEST)
            assert connection.read_head().startswith(status_line)
        _, page = fetch(admin_port, "/-/backends")
        (state,) = json.loads(page)["workers"][0]["backends"]
        assert not state["ejected"]
        assert state["outstanding"] == 1
    finally:
        cleanups.close()
        process.terminate()
        process.wait(LIMIT)
        process.close()
        backend.stop()
