"""demo-httpserver: what it serves, what it tells its cluster, and how it leaves."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest

import arke
from lab import Process
from support.ports import free_port
from support.processes import start_process
from support.programs import CHECKOUT
from support.proxy_process import start_cluster_proxy
from support.relay_status import member_count
from support.relays import Relay, Relays
from support.waiting import LIMIT


class Servers:
    """Web servers that end with the test."""

    def __init__(self) -> None:
        self._all: list[Process] = []

    def start(self, port: int, listen: str, *flags: str, cluster: str = "web") -> Process:
        words = [sys.executable, CHECKOUT / "demo-httpserver" / "httpserver.py"]
        words += ["-cluster", cluster, "-port", str(port), "-listen", listen, *flags]
        process = start_process("httpserver", words)
        self._all.append(process)
        return process

    def end(self) -> None:
        for process in self._all:
            if process.running:
                process.kill()
            process.wait(LIMIT)
            sys.stdout.write(f"--- {process.name}\n{process.tail()}\n")
            process.close()


@pytest.fixture
def servers() -> Iterator[Servers]:
    made = Servers()
    try:
        yield made
    finally:
        made.end()


def ask(relay: Relay, count: int = 1) -> str:
    """Ask the cluster as the proxy does, once it has so many members."""

    async def request_address() -> bytes:
        async with asyncio.timeout(LIMIT), arke.connect(port=relay.port) as mesh:
            while await member_count(mesh, "web") != count:
                await asyncio.sleep(0.02)
            return await mesh.request("web", b"ip")

    return asyncio.run(request_address()).decode()


def get(connection: HTTPConnection, path: str) -> tuple[int, str | None, str]:
    """Return status, Connection field and body."""
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, response.getheader("connection"), response.read().decode()


def test_its_pages_and_where_it_says_they_are(relays: Relays, servers: Servers) -> None:
    relay = relays.start()
    port = free_port()
    servers.start(relay.port, f":{port}")
    assert ask(relay) == f"{relay.address}:{port}"
    page = HTTPConnection(relay.address, port, LIMIT)
    assert get(page, "/") == (200, None, "Welcome!\n")
    assert get(page, "/hello/alice") == (200, None, f"hello, alice!\nhello, {relay.address}!\n")
    assert get(page, "/hello")[0] == 404
    page.close()


@pytest.mark.parametrize(
    ("listen", "named"),
    [
        ("127.0.0.8", "127.0.0.8"),
        ("localhost", "127.0.0.1"),
        ("0.0.0.0", None),
        ("[::]", None),
    ],
)
def test_reply_contains_a_reachable_address(
    relays: Relays, servers: Servers, listen: str, named: str | None
) -> None:
    relay = relays.start()
    port = free_port()
    process = servers.start(relay.port, f"{listen}:{port}")
    here = f"{named or relay.address}:{port}"
    assert ask(relay) == here
    assert process.wait_for_line("^httpserver ready: .*$", LIMIT)[0] == (
        f"httpserver ready: {here} serves web"
    )
    page = HTTPConnection(named or relay.address, port, LIMIT)
    assert get(page, "/") == (200, None, "Welcome!\n")
    page.close()


def test_reply_contains_the_given_port(relays: Relays, servers: Servers) -> None:
    relay = relays.start()
    servers.start(relay.port, "127.0.0.8:0")
    host, _, port = ask(relay).partition(":")
    page = HTTPConnection(host, int(port), LIMIT)
    assert get(page, "/") == (200, None, "Welcome!\n")
    page.close()


def test_server_that_cannot_listen_does_not_register(relays: Relays, servers: Servers) -> None:
    relay = relays.start()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        process = servers.start(relay.port, listen)
        assert process.wait(LIMIT) == 2
    assert process.log.startswith(f"httpserver: -listen {listen}: ")
    assert process.log.count("\n") == 1
    assert "registered" not in relay.process.log


def test_errors_are_one_line(servers: Servers) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other_server:  # not a relay
        port = other_server.getsockname()[1]
        silent = servers.start(port, "127.0.0.1:0")
        assert silent.wait(LIMIT) == 1
    assert silent.log.endswith("\nhttpserver: the relay was silent for 2.5 s\n")
    assert "Traceback" not in silent.log
    for listen, cluster, line in (
        ("nosuchhost.invalid:1", "web", "-listen nosuchhost.invalid:1: "),
        ("127.0.0.1:0", "x" * 256, "-cluster must be 1 to 255 bytes of UTF-8 text"),
    ):
        process = servers.start(1, listen, cluster=cluster)
        assert process.wait(LIMIT) == 2
        assert process.log.startswith(f"httpserver: {line}")
        assert process.log.count("\n") == 1
        assert "Unknown error" not in process.log


def test_server_without_a_relay_stops_with_status_0(servers: Servers) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts and sends nothing
        process = servers.start(silent.getsockname()[1], "127.0.0.1:0")
        peer, _ = silent.accept()
        with peer:
            process.terminate()
            assert process.wait(LIMIT) == 0
    assert "Traceback" not in process.log


def test_stopping_server_still_responds_after_it_left_the_cluster(
    relays: Relays, servers: Servers
) -> None:
    relay = relays.start()
    port = free_port()
    process = servers.start(relay.port, f"127.0.0.1:{port}")
    ask(relay)
    kept, fresh = (HTTPConnection("127.0.0.1", port, LIMIT) for _ in range(2))
    assert get(kept, "/") == (200, None, "Welcome!\n")
    process.terminate()
    relay.process.wait_for_line("program unregistered .*httpserver", LIMIT)
    for connection in (kept, fresh):
        assert get(connection, "/") == (200, None, "Welcome!\n")
        connection.close()
    assert process.wait(LIMIT) == 0


def test_taking_servers_out_fails_no_request(relays: Relays, servers: Servers) -> None:
    relay = relays.start()
    ports = [free_port() for _ in range(3)]
    processes = [servers.start(relay.port, f"127.0.0.1:{port}") for port in ports]
    ask(relay, count=3)
    proxy, port = start_cluster_proxy(relay, "web")
    stop = threading.Event()
    outcomes: list[tuple[int, str | None, str]] = []

    def browse() -> None:
        page = HTTPConnection("127.0.0.1", port, LIMIT)
        while not stop.is_set():
            outcomes.append(get(page, "/"))
        page.close()

    browsers = [threading.Thread(target=browse) for _ in range(8)]
    for browser in browsers:
        browser.start()
    try:
        for process in processes[:2]:
            process.terminate()
            assert process.wait(LIMIT) == 0
    finally:
        stop.set()
        for browser in browsers:
            browser.join(LIMIT)
        proxy.terminate()
        proxy.wait(LIMIT)
        log = proxy.log
        proxy.close()
    assert set(outcomes) == {(200, None, "Welcome!\n")}
    assert len(outcomes) > 100
    assert "WARNING" not in log


def test_published_loopback_address_is_reached_through_a_tunnel(
    relays: Relays, servers: Servers
) -> None:
    near, far = relays.start_pair()
    servers.start(far.port, "127.0.0.1:0", "-publish")
    ask(near)
    process, port = start_cluster_proxy(near, "web", "-via", "tunnel")
    connection = HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    assert get(connection, "/") == (200, None, "Welcome!\n")
    connection.close()
    process.terminate()
    assert process.wait(LIMIT) == 0
    process.close()


def test_server_can_publish_its_listen_address(relays: Relays, servers: Servers) -> None:
    relay = relays.start()
    servers.start(relay.port, f":{free_port()}", "-publish").wait_for_line("ready", LIMIT)
    process, port = start_cluster_proxy(relay, "web", "-choose", "watch")
    connection = HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    assert get(connection, "/") == (200, None, "Welcome!\n")
    connection.close()
    process.terminate()
    assert process.wait(LIMIT) == 0
    process.close()
