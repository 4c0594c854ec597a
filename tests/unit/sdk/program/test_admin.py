from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import pytest

from arke.program import admin as module
from arke.program.admin import AdminServer, Page
from arke.program.logging import Log
from support.raw_http_request import send_raw_request

LIMIT = 20.0  # seconds; generous, every wait ends with its event


async def health() -> Page:
    return Page.text(HTTPStatus.OK)


async def unready() -> Page:
    return Page.text(HTTPStatus.SERVICE_UNAVAILABLE, "no relay")


async def failing() -> Page:
    raise ZeroDivisionError


PAGES = {"/healthz": health, "/readyz": unready, "/failing": failing}


@pytest.fixture
async def address(log: Log) -> AsyncIterator[tuple[str, int]]:
    server = AdminServer(PAGES, log)
    yield await server.listen("127.0.0.1", 0)
    async with asyncio.timeout(LIMIT):
        await server.stop()


async def get(address: tuple[str, int], line: str) -> tuple[int, dict[str, str], str]:
    """Return status, headers and body of the response to a request with this first line."""
    reply = await send_raw_request(address, f"{line} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    head, _, body = reply.decode().partition("\r\n\r\n")
    first, *fields = head.split("\r\n")
    return int(first.split()[1]), dict(field.split(": ", 1) for field in fields), body


async def closed(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(LIMIT):
        with suppress(ConnectionResetError):
            assert await reader.read() == b""


async def test_pages_are_served_by_path(address: tuple[str, int]) -> None:
    assert (await get(address, "GET /healthz?verbose"))[::2] == (200, "OK\n")
    assert (await get(address, "GET /readyz"))[::2] == (503, "no relay\n")


async def test_head_is_get_without_a_body(address: tuple[str, int]) -> None:
    got, head = [await get(address, f"{method} /healthz") for method in ("GET", "HEAD")]
    assert head[0] == got[0]
    assert head[1] | {"Date": ""} == got[1] | {"Date": ""}
    assert head[2] == ""
    assert head[1]["Connection"] == "close"


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET /", 404),
        ("GET /healthz/", 404),
        ("GET /../etc/passwd", 404),
        ("GET http://relay/healthz", 404),
        ("GET  /healthz", 400),
        ("POST /healthz", 405),
        ("DELETE /healthz", 405),
        ("get /healthz", 405),
        ("GET", 400),
        ("", 400),
        ("\x16\x03\x01\x02", 400),
    ],
)
async def test_other_requests_are_rejected(
    line: str, status: int, address: tuple[str, int]
) -> None:
    assert (await get(address, line))[0] == status


async def test_http_1_0_is_served_and_http_2_is_rejected(address: tuple[str, int]) -> None:
    assert b" 200 OK" in await send_raw_request(address, b"GET /healthz HTTP/1.0\r\n\r\n")
    assert b" 400 " in await send_raw_request(address, b"PRI * HTTP/2.0\r\n\r\n")


async def test_a_page_that_fails_is_logged_once_and_the_others_work(
    address: tuple[str, int], log_output: io.StringIO
) -> None:
    for _ in range(3):
        assert (await get(address, "GET /failing"))[0] == 500
    assert (await get(address, "GET /healthz"))[0] == 200
    (line,) = log_output.getvalue().splitlines()
    assert "admin page failed path=/failing" in line
    assert "ZeroDivisionError" in line


async def test_an_endless_head_is_rejected(address: tuple[str, int]) -> None:
    endless = b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 100_000
    assert b" 431 " in await send_raw_request(address, endless)


async def test_an_unexpected_body_does_not_reset_the_response(address: tuple[str, int]) -> None:
    request = b"POST /healthz HTTP/1.1\r\n\r\n" + b"x" * 20_000_000
    assert b" 405 " in await send_raw_request(address, request)


async def test_a_new_connection_evicts_the_oldest_silent_one(address: tuple[str, int]) -> None:
    silent = [await asyncio.open_connection(*address) for _ in range(40)]
    assert (await get(address, "GET /healthz"))[0] == 200
    await closed(silent[0][0])
    for _, writer in silent:
        writer.close()


async def test_a_slow_request_times_out(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TIMEOUT", 0.05)
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"GET /healthz HTTP/1.1\r\n")
    await closed(reader)
    writer.close()


async def test_a_slow_reader_times_out(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    done = asyncio.Event()

    class Observed(AdminServer):
        async def _handle(self, *streams: Any) -> None:
            try:
                await super()._handle(*streams)
            finally:
                done.set()

    body = b"x" * 50_000_000  # more than the kernel buffers

    async def large() -> Page:
        return Page(HTTPStatus.OK, body)

    monkeypatch.setattr(module, "_TIMEOUT", 0.05)
    server = Observed({"/large": large}, log)
    address = await server.listen("127.0.0.1", 0)
    loop = asyncio.get_running_loop()
    received = 0
    with socket.socket() as client:
        client.setblocking(False)
        async with asyncio.timeout(LIMIT):
            await loop.sock_connect(client, address)
            await loop.sock_sendall(client, b"GET /large HTTP/1.1\r\n\r\n")
            await done.wait()
            while more := await loop.sock_recv(client, 1_000_000):
                received += len(more)
    await server.stop()
    assert 0 < received < len(body)


async def test_stop_closes_connections_and_the_listener(log: Log) -> None:
    server = AdminServer(PAGES, log)
    address = await server.listen("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*address)
    await get(address, "GET /healthz")
    async with asyncio.timeout(LIMIT):
        await server.stop()
    await closed(reader)
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address)


async def test_stop_without_start_does_nothing(log: Log) -> None:
    await AdminServer(PAGES, log).stop()


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ("", 200),  # HTTP/1.0; browsers always send the field
        ("Host: localhost\r\n", 200),
        ("Host: LOCALHOST.:9090\r\n", 200),
        ("Host: 127.0.0.1:9090\r\n", 200),
        ("Host: [::1]:9090\r\n", 200),
        ("Host: 192.0.2.7\r\n", 200),
        (f"host:{socket.gethostname()}:1\r\n", 200),
        ("Host: node7.example:9090\r\n", 200),
        ("Host: attacker.example\r\n", 421),
        ("Host: attacker.example:9090\r\n", 421),
        ("Host: 127.0.0.1.attacker.example\r\n", 421),
        ("Host: localhost.attacker.example\r\n", 421),
        ("Host: localhost\r\nHost: attacker.example\r\n", 421),
        ("Host: \r\n", 421),
        ("Host: :9090\r\n", 421),
        ("Host: [::1\r\n", 421),
    ],
)
async def test_pages_are_served_under_known_host_names_only(
    log: Log, fields: str, status: int
) -> None:
    """Otherwise a web page could read them by DNS rebinding."""
    server = AdminServer(PAGES, log, names=("node7.example",))
    address = await server.listen("127.0.0.1", 0)
    try:
        reply = await send_raw_request(address, f"GET /healthz HTTP/1.1\r\n{fields}\r\n".encode())
    finally:
        await server.stop()
    assert int(reply.split()[1]) == status
