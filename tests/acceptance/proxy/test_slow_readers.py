"""TLS clients that do not close when the proxy closes: lingering close is bounded."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from hyperframe.frame import GoAwayFrame, PingFrame

from support.backends import GET
from support.certificates import write_certificate
from support.connection import Connection, connect_tls
from support.deployment import Deployment
from support.proxy_process import tls_port, worker_pids
from support.raw_http2 import RawHttp2
from support.waiting import LIMIT, wait_until

UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
LARGE = 4_000_000


def backend(connection: Connection) -> None:
    while head := connection.read_head():
        if b"Upgrade" in head:
            connection.send(SWITCHED + b"a" * (LARGE if b"/large" in head else 1))
            return
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def idles(connection: Connection) -> None:
    connection.send(GET)
    connection.read_response()


def idles_by_2(connection: Connection) -> None:
    client = RawHttp2(connection)
    client.get(1)
    assert client.read_response(1)[1] == b"ok"
    client.read_until(GoAwayFrame)


def floods(connection: Connection) -> None:
    client = RawHttp2(connection)
    client.send(*[PingFrame(0, b"12345678")] * 1200)
    client.read_until(GoAwayFrame)


def breaks_a_rule(connection: Connection) -> None:
    connection.send(b"GET / HTTP/1.1\r\n\r\n")
    assert connection.read_response()[0].status == 400


def asks_for_the_end(connection: Connection) -> None:
    connection.send(GET[:-2] + b"Connection: close\r\n\r\n")
    connection.read_response()


def hears_the_last_of_a_web_socket(connection: Connection) -> None:
    connection.send(UPGRADE)
    connection.read_until(b"\r\n\r\na")


CASES = {
    "idles": (idles, []),
    "idles by HTTP/2": (idles_by_2, ["h2"]),
    "floods": (floods, ["h2"]),
    "breaks a rule": (breaks_a_rule, []),
    "asks for the end": (asks_for_the_end, []),
    "a web socket": (hears_the_last_of_a_web_socket, []),
}


class Door:
    """A proxy that listens with TLS, and the number of its worker's descriptors."""

    def __init__(self, deployment: Deployment, folder: Path, *more: str) -> None:
        flags = ["-choose", "static", "-backend", deployment.backend(backend).address]
        flags += ["-cert", write_certificate(folder, "a.example", file="a")]
        flags += ["-tls-listen", "127.0.0.1:0", "-idle", "300ms", *more]
        self.proxy = proxy = deployment.proxy(*flags)
        self._port = tls_port(proxy.process)
        self._context = ssl.create_default_context(cafile=folder / "a.pem")
        (worker,) = worker_pids(proxy.process)
        self._descriptors = Path(f"/proc/{worker}/fd")

    def connect(self, protocols: list[str]) -> Connection:
        if protocols:
            self._context.set_alpn_protocols(protocols)
        return connect_tls(self._port, self._context, "a.example")

    def in_use(self) -> int:
        return sum(1 for _ in self._descriptors.iterdir())


@pytest.mark.parametrize(("acts", "protocols"), CASES.values(), ids=CASES)
def test_unclosed_tls_connection_frees_descriptor(
    deployment: Deployment, tmp_path: Path, acts: Callable[[Connection], None], protocols: list[str]
) -> None:
    """Within the lingering time, not only after -timeout."""
    door = Door(deployment, tmp_path)
    before = door.in_use()
    connection = door.connect(protocols)
    acts(connection)
    wait_until(lambda: door.in_use() <= before)  # the client's side stays open
    connection.close()


def test_slow_websocket_reader_gets_last_message(deployment: Deployment, tmp_path: Path) -> None:
    """It starts to read after the time at which a client that never reads would be reset."""
    door = Door(deployment, tmp_path)
    deaf, slow = door.connect([]), door.connect([])
    before = door.in_use()
    slow.send(UPGRADE.replace(b"GET / ", b"GET /large "))
    slow.read_until(b"\r\n\r\n")
    deaf.send(UPGRADE)
    deaf.read_until(b"\r\n\r\na")
    wait_until(lambda: door.in_use() < before)
    assert slow.read_to_end() == b"a" * LARGE
    for connection in (deaf, slow):
        connection.close()


def test_client_that_never_reads_is_reset(deployment: Deployment, tmp_path: Path) -> None:
    door = Door(deployment, tmp_path, "-timeout", "1s")
    before = door.in_use()
    connection = door.connect([])
    connection.send(UPGRADE.replace(b"GET / ", b"GET /large "))
    connection.read_until(b"\r\n\r\n")
    wait_until(lambda: door.in_use() <= before)
    connection.close()


def test_half_closed_websocket_does_not_delay_shutdown(
    deployment: Deployment, tmp_path: Path
) -> None:
    door = Door(deployment, tmp_path, "-grace", "300ms")
    connection = door.connect([])
    connection.send(UPGRADE.replace(b"GET / ", b"GET /large "))
    connection.read_until(b"\r\n\r\n")
    door.proxy.process.terminate()
    assert door.proxy.process.wait(LIMIT) == 0
    connection.close()
