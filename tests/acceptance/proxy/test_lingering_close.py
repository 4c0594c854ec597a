"""TLS clients that do not close after the proxy has closed: lingering close is bounded."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from hyperframe.frame import GoAwayFrame, PingFrame

from support.backend_scripts import UPGRADE_REQUEST, UPGRADE_RESPONSE
from support.backends import GET
from support.certificates import write_certificate
from support.connection import Connection, connect_tls
from support.deployment import Deployment
from support.proxy_process import tls_port, worker_pids
from support.raw_http2 import RawHttp2
from support.waiting import LIMIT, wait_until

LARGE = 4_000_000


def respond_or_upgrade(connection: Connection) -> None:
    while head := connection.read_head():
        if b"Upgrade" in head:
            connection.send(UPGRADE_RESPONSE + b"a" * (LARGE if b"/large" in head else 1))
            return
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def become_idle(connection: Connection) -> None:
    connection.send(GET)
    connection.read_response()


def become_idle_http2(connection: Connection) -> None:
    client = RawHttp2(connection)
    client.get(1)
    assert client.read_response(1)[1] == b"ok"
    client.read_until(GoAwayFrame)


def flood_with_pings(connection: Connection) -> None:
    client = RawHttp2(connection)
    client.send(*[PingFrame(0, b"12345678")] * 1200)
    client.read_until(GoAwayFrame)


def send_malformed_request(connection: Connection) -> None:
    connection.send(b"GET / HTTP/1.1\r\n\r\n")
    assert connection.read_response()[0].status == 400


def send_connection_close(connection: Connection) -> None:
    connection.send(GET[:-2] + b"Connection: close\r\n\r\n")
    connection.read_response()


def read_websocket_until_backend_closes(connection: Connection) -> None:
    connection.send(UPGRADE_REQUEST)
    connection.read_until(b"\r\n\r\na")


CASES = {
    "idle HTTP/1.1": (become_idle, []),
    "idle HTTP/2": (become_idle_http2, ["h2"]),
    "PING flood": (flood_with_pings, ["h2"]),
    "malformed request": (send_malformed_request, []),
    "Connection: close": (send_connection_close, []),
    "WebSocket": (read_websocket_until_backend_closes, []),
}


class TlsProxy:
    """A proxy that listens with TLS, and the descriptors of its worker."""

    def __init__(self, deployment: Deployment, folder: Path, *more_flags: str) -> None:
        flags = ["-choose", "static", "-backend", deployment.backend(respond_or_upgrade).address]
        flags += ["-cert", write_certificate(folder, "a.example", file="a")]
        flags += ["-tls-listen", "127.0.0.1:0", "-idle", "300ms", *more_flags]
        proxy = deployment.proxy(*flags)
        self.process = proxy.process
        self._port = tls_port(proxy.process)
        self._context = ssl.create_default_context(cafile=folder / "a.pem")
        (worker,) = worker_pids(proxy.process)
        self._descriptors = Path(f"/proc/{worker}/fd")

    def connect(self, protocols: list[str]) -> Connection:
        if protocols:
            self._context.set_alpn_protocols(protocols)
        return connect_tls(self._port, self._context, "a.example")

    def descriptors_in_use(self) -> int:
        return sum(1 for _ in self._descriptors.iterdir())


@pytest.mark.parametrize(("make_proxy_close", "protocols"), CASES.values(), ids=CASES)
def test_unclosed_tls_connection_frees_descriptor(
    deployment: Deployment,
    tmp_path: Path,
    make_proxy_close: Callable[[Connection], None],
    protocols: list[str],
) -> None:
    """The proxy closes its socket after the lingering time, which is shorter than -timeout."""
    proxy = TlsProxy(deployment, tmp_path)
    before = proxy.descriptors_in_use()
    connection = proxy.connect(protocols)
    make_proxy_close(connection)
    wait_until(lambda: proxy.descriptors_in_use() <= before)  # the client's side stays open
    connection.close()


def test_slow_websocket_reader_gets_last_message(deployment: Deployment, tmp_path: Path) -> None:
    """It starts to read only after the lingering time of another connection has ended."""
    proxy = TlsProxy(deployment, tmp_path)
    unresponsive, slow = proxy.connect([]), proxy.connect([])
    before = proxy.descriptors_in_use()
    slow.send(UPGRADE_REQUEST.replace(b"GET / ", b"GET /large "))
    slow.read_until(b"\r\n\r\n")
    unresponsive.send(UPGRADE_REQUEST)
    unresponsive.read_until(b"\r\n\r\na")
    wait_until(lambda: proxy.descriptors_in_use() < before)
    assert slow.read_to_end() == b"a" * LARGE
    for connection in (unresponsive, slow):
        connection.close()


def test_client_that_never_reads_is_reset(deployment: Deployment, tmp_path: Path) -> None:
    proxy = TlsProxy(deployment, tmp_path, "-timeout", "1s")
    before = proxy.descriptors_in_use()
    connection = proxy.connect([])
    connection.send(UPGRADE_REQUEST.replace(b"GET / ", b"GET /large "))
    connection.read_until(b"\r\n\r\n")
    wait_until(lambda: proxy.descriptors_in_use() <= before)
    connection.close()


def test_half_closed_websocket_does_not_delay_shutdown(
    deployment: Deployment, tmp_path: Path
) -> None:
    proxy = TlsProxy(deployment, tmp_path, "-grace", "300ms")
    connection = proxy.connect([])
    connection.send(UPGRADE_REQUEST.replace(b"GET / ", b"GET /large "))
    connection.read_until(b"\r\n\r\n")
    proxy.process.terminate()
    assert proxy.process.wait(LIMIT) == 0
    connection.close()
