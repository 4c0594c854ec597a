"""The two programs of the demo that was written for Iris, octet by octet as their binding sends.

Its web server connects, registers, and answers where it is; its reverse proxy connects, and asks
the cluster for each page. Neither is changed; either works beside its native counterpart.
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
ASK = b"\x04\x00\x03web\x02ip\x88\x27"  # its first request, for 5 seconds
CLOSE = b"\x02"
CLOSED = b"\x02\x00"


async def exactly(raw: RawIris, octets: bytes) -> None:
    async with asyncio.timeout(LIMIT):
        assert await raw.reader.readexactly(len(octets)) == octets


@asynccontextmanager
async def web_server(port: int, address: str) -> AsyncIterator[list[bytes]]:
    """It holds a connection that it never uses, and a registered one; yields what it was asked."""
    asked: list[bytes] = []
    async with raw_iris(port) as unused, raw_iris(port) as service:
        await unused.send(CONNECT)
        await exactly(unused, WELCOME)
        await service.send(REGISTER)
        await exactly(service, WELCOME)

        async def serve() -> None:
            while True:
                op, number, body, _ = await service.receive_without_limit()
                assert op == Op.REQUEST
                asked.append(body)
                await service.send_packet(Op.REPLY, number, address.encode())

        serving = asyncio.ensure_future(serve())
        try:
            yield asked
            assert not serving.done(), serving.exception()
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


async def known(relay: Relay, count: int) -> None:
    async with arke.connect(port=relay.port) as observer:
        await wait_for_members(observer, "web", count)


async def test_the_reverse_proxy_asks_and_is_told_where_the_web_server_is(relays: Relays) -> None:
    one, other = relays.start_pair()
    async with web_server(other.port, "192.168.56.102") as asked, raw_iris(one.port) as proxy:
        await known(one, 1)
        await proxy.send(CONNECT)
        await exactly(proxy, WELCOME)
        await proxy.send(ASK)
        await exactly(proxy, b"\x05\x00\x00\x01\x0e192.168.56.102")
        await proxy.send(CLOSE)
        await exactly(proxy, CLOSED)
        assert await proxy.reader.read() == b""
    assert asked == [b"ip"]


async def test_both_web_servers_are_named_in_turn(relays: Relays) -> None:
    one, other = relays.start_pair()
    named: list[bytes] = []
    async with (
        web_server(one.port, "192.168.56.102"),
        web_server(other.port, "192.168.56.103"),
        iris_program(one.port) as proxy,
    ):
        await known(one, 2)
        named = [await proxy.request("web", b"ip", 5.0) for _ in range(100)]
    assert {named.count(b"192.168.56.102"), named.count(b"192.168.56.103")} != {0, 100}
    assert named.count(b"192.168.56.102") + named.count(b"192.168.56.103") == 100


@contextmanager
def page(text: bytes) -> Iterator[str]:
    """A web server that always shows this; yields its address."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text)

    def script(connection: Connection) -> None:
        while connection.read_head():
            connection.send(answer)

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


async def test_our_proxy_finds_a_web_server_written_for_iris(relays: Relays) -> None:
    relay = relays.start()
    async with AsyncExitStack() as stack:
        address = stack.enter_context(page(b"Welcome!\n"))
        asked = await stack.enter_async_context(web_server(relay.port, address))
        await known(relay, 1)
        process, port = await asyncio.to_thread(start_cluster_proxy, relay, "web")
        try:
            for _ in range(3):
                assert await asyncio.to_thread(get, port) == b"Welcome!\n"
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait, LIMIT)
            process.close()
        # Of requests that follow closely, the proxy asks for some addresses ahead of need.
        assert len(asked) >= 3
        assert set(asked) == {b"ip"}


async def test_a_reverse_proxy_written_for_iris_finds_our_web_server(relays: Relays) -> None:
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
        await known(relay, 1)
        async with iris_program(relay.port) as proxy:
            where = (await proxy.request("web", b"ip", 5.0)).decode()
        assert where == f"{relay.address}:{listen}"
    finally:
        server.terminate()
        await asyncio.to_thread(server.wait, LIMIT)
        server.close()


async def test_a_web_server_that_fails_is_told_to_the_reverse_proxy(relays: Relays) -> None:
    async def lost(_: bytes) -> bytes:
        raise OSError("no interface is up")

    relay = relays.start()
    async with (
        iris_program(relay.port, "web", Handlers(lost)),
        raw_iris(relay.port) as proxy,
    ):
        await proxy.send(CONNECT + ASK)
        await exactly(proxy, WELCOME + b"\x05\x00\x00\x00\x12no interface is up")
