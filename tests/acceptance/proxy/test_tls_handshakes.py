"""Incomplete TLS handshakes: they count as client connections, time out and are logged."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from support.admin_pages import metric_value
from support.backends import GET, respond_with
from support.certificates import write_certificate
from support.connection import Connection, connect_tls
from support.deployment import Proxy, new_deployment
from support.ports import free_port
from support.proxy_process import tls_port
from support.waiting import LIMIT, wait_until

HANDSHAKE_FAILURES = 'arke_proxy_failures_total{reason="tls_handshake_failed"}'
TOO_MANY = 'arke_proxy_failures_total{reason="too_many_connections"}'


class TlsProxy:
    """A proxy that listens with TLS, and its metrics."""

    def __init__(self, proxy: Proxy, admin_port: int, folder: Path) -> None:
        self.process = proxy.process
        self._proxy = proxy
        self._log = folder / "access.log"
        self._port = tls_port(proxy.process)
        self._admin_port = admin_port
        self._context = ssl.create_default_context(cafile=folder / "a.pem")
        self._connections: list[Connection] = []

    def connect_without_handshake(self, data: bytes = b"") -> Connection:
        """Connect without TLS and send `data`, which does not complete a handshake."""
        connection = self._proxy.connect(self._port)
        self._connections.append(connection)
        connection.send(data)
        return connection

    def connect(self) -> Connection:
        connection = connect_tls(self._port, self._context, "a.example")
        self._connections.append(connection)
        return connection

    def request_without_tls(self) -> tuple[HTTPResponse, bytes]:
        return self._proxy.request()

    def serves_tls_client(self) -> bool:
        """Whether a new TLS client gets a response of the backend."""
        try:
            connection = self.connect()
        except OSError:
            return False
        connection.send(GET)
        responded = connection.read_response()[1] == b"one"
        connection.close()
        return responded

    def metric(self, name: str) -> float:
        return metric_value(self._admin_port, name)

    def log_entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text(encoding="ascii").splitlines()]

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


def expect_close_without_data(connection: Connection) -> None:
    """Wait until the proxy closes or resets the connection; it must send nothing."""
    with suppress(ConnectionResetError):
        assert connection.read_to_end() == b""


Start = Callable[[Sequence[str], int | None], TlsProxy]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A function that starts a proxy with additional flags, and optionally few descriptors."""
    proxies: list[TlsProxy] = []
    with new_deployment() as deployment:

        def start_proxy(more_flags: Sequence[str] = (), descriptors: int | None = None) -> TlsProxy:
            admin_port = free_port()
            backend = deployment.backend(respond_with("one"))
            flags = ["-choose", "static", "-backend", backend.address]
            flags += ["-cert", write_certificate(tmp_path, "a.example", file="a")]
            flags += ["-tls-listen", "127.0.0.1:0", "-admin", f"127.0.0.1:{admin_port}"]
            flags += ["-access-log", str(tmp_path / "access.log"), "-access-format", "json"]
            proxies.append(
                TlsProxy(
                    deployment.proxy(*flags, *more_flags, descriptors=descriptors),
                    admin_port,
                    tmp_path,
                )
            )
            return proxies[-1]

        yield start_proxy
        for proxy in proxies:
            proxy.close()


@pytest.mark.parametrize("flag", ["-max-clients", "-max-per-client"])
def test_handshakes_count_towards_client_limit(start: Start, flag: str) -> None:
    proxy = start((flag, "3"), None)
    silent = [proxy.connect_without_handshake() for _ in range(3)]
    wait_until(lambda: proxy.metric("arke_proxy_connections") == 3)
    assert not proxy.serves_tls_client()  # without TLS there is no response
    response, body = proxy.request_without_tls()
    assert (response.status, body[:17]) == (503, b"The proxy has 3 c")
    assert proxy.metric(TOO_MANY) == 2
    wait_until(lambda: [entry["status"] for entry in proxy.log_entries()] == [0, 503])
    proxy.process.wait_for_line("The proxy has 3 c", LIMIT)
    silent[0].close()
    wait_until(proxy.serves_tls_client)
    assert proxy.metric(HANDSHAKE_FAILURES) == 0


def test_handshakes_cannot_exhaust_descriptors(start: Start) -> None:
    proxy = start((), 128)
    accepted = proxy.connect()
    silent = [proxy.connect_without_handshake() for _ in range(200)]
    wait_until(lambda: proxy.metric(TOO_MANY) > 100)
    for _ in range(5):
        assert proxy.request_without_tls()[0].status == 503
        accepted.send(GET)
        assert accepted.read_response()[1] == b"one"
    assert "descriptors are in use" not in proxy.process.log
    for connection in silent:
        connection.close()
    wait_until(proxy.serves_tls_client)


def test_incomplete_handshake_times_out(start: Start) -> None:
    proxy = start((), None)
    incomplete = proxy.connect_without_handshake(b"\x16\x03\x01\x02")
    silent = proxy.connect_without_handshake()
    for connection in (incomplete, silent):
        expect_close_without_data(connection)
    wait_until(lambda: proxy.metric(HANDSHAKE_FAILURES) == 2)
    assert proxy.metric("arke_proxy_connections") == 0


def test_failed_handshake_is_counted_and_logged(start: Start) -> None:
    proxy = start((), None)
    silent = proxy.connect_without_handshake(GET)
    with suppress(ConnectionResetError):
        silent.read_to_end()  # TLS sends an alert
    assert proxy.metric(HANDSHAKE_FAILURES) == 1
    wait_until(lambda: len(proxy.log_entries()) == 1)
    (line,) = proxy.log_entries()
    assert (line["client"], line["status"], line["outcome"]) == (
        "127.0.0.1",
        0,
        "tls_handshake_failed",
    )


@pytest.mark.parametrize("reset", [False, True])
def test_disconnect_during_handshake_is_not_a_failure(start: Start, reset: bool) -> None:
    """TCP health checks of load balancers do so all the time, so it is not logged."""
    proxy = start(("-max-clients", "1"), None)
    client = proxy.connect_without_handshake(b"\x16\x03\x01\x02")
    wait_until(lambda: proxy.metric("arke_proxy_connections") == 1)
    if reset:
        client.reset()
    else:
        client.close()
    wait_until(proxy.serves_tls_client)
    assert proxy.metric(HANDSHAKE_FAILURES) == 0


def test_handshakes_do_not_delay_shutdown(start: Start) -> None:
    proxy = start(("-grace", "25s"), None)
    silent = proxy.connect_without_handshake(b"\x16\x03")
    wait_until(lambda: proxy.metric("arke_proxy_connections") == 1)
    proxy.process.terminate()
    expect_close_without_data(silent)
    assert proxy.process.wait(LIMIT) == 0
    assert "still open" not in proxy.process.log
    assert [entry for entry in proxy.log_entries() if entry["outcome"]] == []
