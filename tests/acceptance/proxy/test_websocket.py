"""Connections that leave HTTP: WebSockets, and whatever else a backend agrees to."""

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

from support.http_rig import Backend, Connection, Rig, start_any_proxy
from support.relays import LIMIT, free_port

ASK = b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
MIB = 1 << 20


@asynccontextmanager
async def web_sockets(codes: list[int | None]) -> AsyncIterator[str]:
    """A backend that says everything back, in capitals where it is text.

    `codes` gets what clients close with.
    """

    async def echo(request: web.Request) -> web.WebSocketResponse:
        talk = web.WebSocketResponse(max_msg_size=0)
        await talk.prepare(request)
        async for message in talk:
            if message.type is WSMsgType.TEXT:
                await talk.send_str(message.data.upper())
            else:
                await talk.send_bytes(message.data)
        codes.append(talk.close_code)
        return talk

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


async def test_a_web_socket(rig: Rig) -> None:
    codes: list[int | None] = []
    large = hashlib.shake_256(b"large").digest(5 * MIB)
    async with web_sockets(codes) as address, ClientSession() as session:
        rig.cluster.answers = [address]
        async with asyncio.timeout(LIMIT):
            url = f"http://127.0.0.1:{rig.port}/ws"
            async with session.ws_connect(url, max_msg_size=0) as talk:
                for text in ("hello", "", "ü" * 1000):
                    await talk.send_str(text)
                    assert await talk.receive_str() == text.upper()
                await talk.send_bytes(large)
                assert await talk.receive_bytes() == large
                await talk.ping()
                assert await talk.close(code=4000)
    assert codes == [4000]


def test_what_is_said_at_once_is_not_lost(rig: Rig) -> None:
    """The backend speaks in the same packet as its 101, the client before it has seen that."""
    heads = []

    def script(connection: Connection) -> None:
        heads.append(connection.head())
        connection.send(SWITCH + b"first")
        connection.send(connection.exactly(5)[::-1])

    rig.backends(script)
    connection = rig.connect()
    connection.send(ASK + b"early")
    head = connection.head().lower()
    assert head.startswith(b"http/1.1 101 ")
    assert b"\r\nupgrade: websocket\r\n" in head
    assert b"\r\nconnection: upgrade\r\n" in head
    assert connection.exactly(10) == b"firstylrae"
    assert b"\r\nconnection: upgrade\r\n" in heads[0].lower()
    assert b"\r\nupgrade: websocket\r\n" in heads[0].lower()


@pytest.mark.parametrize("first", ["client", "backend"])
def test_each_direction_ends_by_itself(rig: Rig, first: str) -> None:
    done = threading.Event()

    def end(connection: Connection) -> None:
        connection.sock.shutdown(socket.SHUT_WR)

    def script(connection: Connection) -> None:
        connection.head()
        connection.send(SWITCH)
        if first == "client":
            assert connection.rest() == b"that is all"
            connection.send(b"and this")
        else:
            connection.send(b"and this")
            end(connection)
            assert connection.rest() == b"that is all"
        done.set()

    rig.backends(script)
    connection = rig.connect()
    connection.send(ASK)
    connection.head()
    if first == "client":
        connection.send(b"that is all")
        end(connection)
        assert connection.rest() == b"and this"
    else:
        assert connection.rest() == b"and this"
        connection.send(b"that is all")
        end(connection)
    assert done.wait(LIMIT)


def test_a_backend_that_dies_is_no_orderly_end(rig: Rig) -> None:
    def script(connection: Connection) -> None:
        connection.head()
        connection.send(SWITCH)
        connection.exactly(1)
        connection.reset()

    rig.backends(script)
    connection = rig.connect()
    connection.send(ASK)
    connection.head()
    connection.send(b"x")
    with pytest.raises(ConnectionResetError):
        connection.rest()


@pytest.mark.alone
def test_who_reads_slowly_slows_the_other(rig: Rig) -> None:
    size = 48 * MIB
    data = hashlib.shake_256(b"splice").digest(size)
    stalled = threading.Event()
    digests = []

    def script(connection: Connection) -> None:
        connection.head()
        connection.send(SWITCH)
        assert stalled.wait(LIMIT)
        digest = hashlib.sha256()
        for _ in range(size // MIB):
            digest.update(connection.exactly(MIB))
        digests.append(digest.digest())
        connection.send(b"all")

    rig.backends(script)
    connection = rig.connect()
    connection.send(ASK)
    connection.head()
    before = rig.memory
    sent = 0
    connection.sock.setblocking(False)
    while select.select([], [connection.sock], [], 1.0)[1]:
        sent += connection.sock.send(data[sent : sent + MIB])
        assert sent < size, "nothing slows the client down"
    assert rig.memory - before < 2 * MIB
    stalled.set()
    connection.sock.settimeout(LIMIT)
    connection.send(data[sent:])
    assert connection.exactly(3) == b"all"
    assert digests == [hashlib.sha256(data).digest()]


def test_a_backend_may_decline(rig: Rig) -> None:
    def script(connection: Connection) -> None:
        while connection.head():
            connection.send(OK)

    rig.backends(script)
    connection = rig.connect()
    for _ in range(2):
        connection.send(ASK)
        assert connection.response()[1] == b"ok"


UNASKED = {
    "no upgrade was asked for": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "not named by Connection": b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
    "another protocol": ASK.replace(b"WebSocket", b"h2c"),
    "several protocols": ASK.replace(b"WebSocket", b"websocket, other"),
    "HTTP/1.0": ASK.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "with a body": ASK.replace(b"\r\n\r\n", b"\r\nContent-Length: 1\r\n\r\nx"),
    "not a GET": ASK.replace(b"GET", b"POST"),
}


@pytest.mark.parametrize("request_", UNASKED.values(), ids=UNASKED)
def test_nobody_switches_unasked(rig: Rig, request_: bytes) -> None:
    def script(connection: Connection) -> None:
        connection.head()
        connection.send(SWITCH + b"smuggled")
        connection.rest()

    rig.backends(script)
    response, body = rig.exchange(request_)
    assert response.status == 502
    assert b"smuggled" not in body


def test_a_backend_that_switches_has_answered() -> None:
    """It is well as soon as it does so: its WebSockets may live for hours."""
    times = iter(range(100))

    def breaks_once(connection: Connection) -> None:
        assert connection.head()
        if next(times):
            connection.send(SWITCH)
            connection.rest()

    backend = Backend(breaks_once)
    admin = free_port()
    flags = ["-choose", "static", "-backend", backend.address, "-admin", f"127.0.0.1:{admin}"]
    process, port = start_any_proxy(*flags)
    ends = ExitStack()
    try:
        for first in (b"HTTP/1.1 502", b"HTTP/1.1 101"):
            connection = Connection(socket.create_connection(("127.0.0.1", port), LIMIT))
            ends.callback(connection.close)
            connection.send(ASK)
            assert connection.head().startswith(first)
        pages = Connection(socket.create_connection(("127.0.0.1", admin), LIMIT))
        ends.callback(pages.close)
        pages.send(b"GET /-/backends HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        pages.until(b"\r\n\r\n")
        body = pages.rest()
        (state,) = json.loads(body)["workers"][0]["backends"]
        assert not state["ejected"]
        assert state["outstanding"] == 1
    finally:
        ends.close()
        process.terminate()
        process.wait(LIMIT)
        process.close()
        backend.end()
