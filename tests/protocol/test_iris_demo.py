"""The web server and the reverse proxy of the Iris demo, with the exact bytes that they send.

The web server registers and replies with its address. The reverse proxy requests an address from
the cluster for each page. Each works together with its native counterpart.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import arke
from support.backends import Backend
from support.connection import Connection
from support.iris_client import Handlers, iris_program
from support.iris_packets import Op
from support.ports import free_port
from support.processes import start_process
from support.programs import CHECKOUT
from support.proxy_process import start_cluster_proxy
from support.raw_iris import RawIris, raw_iris
from support.relay_status import wait_for_members
from support.relays import Relay, Relays
from support.waiting import LIMIT

CONNECT = b"\x00\x11iris-client-magic\x0bv1.0-draft2\x00"
REGISTER = b"\x00\x11iris-client-magic\x0bv1.0-draft2\x03web"
WELCOME = b"\x00\x10iris-relay-magic\x0bv1.0-draft2"
FIRST_REQUEST = b"\x04\x00\x03web\x02ip\x88\x27"  # with a time-out of 5 seconds
CLOSE = b"\x02"
CLOSE_REPLY = b"\x02\x00"


async def receive_exactly(raw: RawIris, data: bytes) -> None:
    async with asyncio.timeout(LIMIT):
        assert await raw.reader.readexactly(len(data)) == data


@asynccontextmanager
async def web_server(port: int, address: str) -> AsyncIterator[list[bytes]]:
    """A web server with an unused connection and a registered one. Yields the requests it gets."""
    requests: list[bytes] = []
    async with raw_iris(port) as unused, raw_iris(port) as service:
        await unused.send(CONNECT)
        await receive_exactly(unused, WELCOME)
        await service.send(REGISTER)
        await receive_exactly(service, WELCOME)

        async def serve() -> None:
            while True:
                op, number, body, _ = await service.receive_without_limit()
                assert op == Op.REQUEST
                requests.append(body)
                await service.send_packet(Op.REPLY, number, address.encode())

        serving = asyncio.ensure_future(serve())
        try:
            yield requests
            assert not serving.done(), serving.exception()
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


async def wait_for_web_servers(relay: Relay, count: int) -> None:
    async with arke.connect(port=relay.port) as observer:
        await wait_for_members(observer, "web", count)


async def test_iris_reverse_proxy_gets_the_address_of_an_iris_web_server(relays: Relays) -> None:
    one, other = relays.start_pair()
    async with web_server(other.port, "192.168.56.102") as requests, raw_iris(one.port) as proxy:
        await wait_for_web_servers(one, 1)
        await proxy.send(CONNECT)
        await receive_exactly(proxy, WELCOME)
        await proxy.send(FIRST_REQUEST)
        await receive_exactly(proxy, b"\x05\x00\x00\x01\x0e192.168.56.102")
        await proxy.send(CLOSE)
        await receive_exactly(proxy, CLOSE_REPLY)
        assert await proxy.reader.read() == b""
    assert requests == [b"ip"]


async def test_requests_are_balanced_over_both_web_servers(relays: Relays) -> None:
    one, other = relays.start_pair()
    replies: list[bytes] = []
    async with (
        web_server(one.port, "192.168.56.102"),
        web_server(other.port, "192.168.56.103"),
        iris_program(one.port) as proxy,
    ):
        await wait_for_web_servers(one, 2)
        replies = [await proxy.request("web", b"ip", 5.0) for _ in range(100)]
    assert {replies.count(b"192.168.56.102"), replies.count(b"192.168.56.103")} != {0, 100}
    assert replies.count(b"192.168.56.102") + replies.count(b"192.168.56.103") == 100


@contextmanager
def page_server(text: bytes) -> Iterator[str]:
    """A web server that responds with `text`; yields its address."""
    response = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text)

    def script(connection: Connection) -> None:
        while connection.read_head():
            connection.send(response)

    backend = Backend(script)
    try:
        yield backend.address
    finally:
        backend.stop()


def get(port: int) -> bytes:
    connection = HTTPConnection("127.0.0.1", port, LIMIT)
    connection.request("GET", "/")
    response = connection.getresponse()
    assert response.status == 200
    body = response.read()
    connection.close()
    return body


async def test_arke_proxy_finds_an_iris_web_server(relays: Relays) -> None:
    relay = relays.start()
    async with AsyncExitStack() as stack:
        address = stack.enter_context(page_server(b"Welcome!\n"))
        requests = await stack.enter_async_context(web_server(relay.port, address))
        await wait_for_web_servers(relay, 1)
        process, port = await asyncio.to_thread(start_cluster_proxy, relay, "web")
        try:
            for _ in range(3):
                assert await asyncio.to_thread(get, port) == b"Welcome!\n"
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait, LIMIT)
            process.close()
        # The proxy may prefetch addresses, so that there can be more than three requests.
        assert len(requests) >= 3
        assert set(requests) == {b"ip"}


async def test_iris_reverse_proxy_finds_an_arke_web_server(relays: Relays) -> None:
    relay, listen = relays.start(), free_port()
    words: list[str | Path] = [
        sys.executable,
        CHECKOUT / "demo-httpserver" / "httpserver.py",
        "-cluster",
        "web",
    ]
    server = start_process(
        "httpserver", [*words, "-port", str(relay.port), "-listen", f":{listen}"]
    )
    try:
        await wait_for_web_servers(relay, 1)
        async with iris_program(relay.port) as proxy:
            address = (await proxy.request("web", b"ip", 5.0)).decode()
        assert address == f"{relay.address}:{listen}"
    finally:
        server.terminate()
        await asyncio.to_thread(server.wait, LIMIT)
        server.close()


async def test_error_of_an_iris_web_server_reaches_the_reverse_proxy(relays: Relays) -> None:
    async def raise_error(_: bytes) -> bytes:
        raise OSError("no interface is up")

    relay = relays.start()
    async with (
        iris_program(relay.port, "web", Handlers(raise_error)),
        raw_iris(relay.port) as proxy,
    ):
        await proxy.send(CONNECT + FIRST_REQUEST)
        await receive_exactly(proxy, WELCOME + b"\x05\x00\x00\x00\x12no interface is up")
