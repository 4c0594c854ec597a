"""Incomplete TLS handshakes: they count as client connections, time out and are logged."""

from __future__ import annotations

from contextlib import suppress

import pytest

from support.backends import GET, respond_with
from support.connection import Connection
from support.observed_proxy import ObservedProxy, StartProxy
from support.waiting import LIMIT, wait_until

HANDSHAKE_FAILURES = 'arke_proxy_failures_total{reason="tls_handshake_failed"}'
TOO_MANY = 'arke_proxy_failures_total{reason="too_many_connections"}'


def serves_tls_client(proxy: ObservedProxy) -> bool:
    """Whether a new TLS client gets a response of the backend."""
    try:
        connection = proxy.connect_tls()
    except OSError:
        return False
    connection.send(GET)
    responded = connection.read_response()[1] == b"one"
    connection.close()
    return responded


def expect_close_without_data(connection: Connection) -> None:
    """Wait until the proxy closes or resets the connection; it must send nothing."""
    with suppress(ConnectionResetError):
        assert connection.read_to_end() == b""


@pytest.mark.parametrize("flag", ["-max-clients", "-max-per-client"])
def test_handshakes_count_towards_client_limit(start: StartProxy, flag: str) -> None:
    proxy = start(respond_with("one"), flag, "3")
    silent = [proxy.connect_without_handshake() for _ in range(3)]
    wait_until(lambda: proxy.metric("arke_proxy_connections") == 3)
    assert not serves_tls_client(proxy)  # without TLS there is no response
    response, body = proxy.request()
    assert (response.status, body[:17]) == (503, b"The proxy has 3 c")
    assert proxy.metric(TOO_MANY) == 2
    wait_until(lambda: [entry["status"] for entry in proxy.log_entries()] == [0, 503])
    proxy.process.wait_for_line("The proxy has 3 c", LIMIT)
    silent[0].close()
    wait_until(lambda: serves_tls_client(proxy))
    assert proxy.metric(HANDSHAKE_FAILURES) == 0


def test_handshakes_cannot_exhaust_descriptors(start: StartProxy) -> None:
    proxy = start(respond_with("one"), descriptors=128)
    accepted = proxy.connect_tls()
    silent = [proxy.connect_without_handshake() for _ in range(200)]
    wait_until(lambda: proxy.metric(TOO_MANY) > 100)
    for _ in range(5):
        assert proxy.request()[0].status == 503
        accepted.send(GET)
        assert accepted.read_response()[1] == b"one"
    assert "descriptors are in use" not in proxy.process.log
    for connection in silent:
        connection.close()
    wait_until(lambda: serves_tls_client(proxy))


def test_incomplete_handshake_times_out(start: StartProxy) -> None:
    proxy = start(respond_with("one"))
    incomplete = proxy.connect_without_handshake(b"\x16\x03\x01\x02")
    silent = proxy.connect_without_handshake()
    for connection in (incomplete, silent):
        expect_close_without_data(connection)
    wait_until(lambda: proxy.metric(HANDSHAKE_FAILURES) == 2)
    assert proxy.metric("arke_proxy_connections") == 0


def test_failed_handshake_is_counted_and_logged(start: StartProxy) -> None:
    proxy = start(respond_with("one"))
    silent = proxy.connect_without_handshake(GET)
    with suppress(ConnectionResetError):
        silent.read_to_end()  # TLS sends an alert
    assert proxy.metric(HANDSHAKE_FAILURES) == 1
    (line,) = proxy.log_entries(1)
    assert (line["client"], line["status"], line["outcome"]) == (
        "127.0.0.1",
        0,
        "tls_handshake_failed",
    )


@pytest.mark.parametrize("reset", [False, True])
def test_disconnect_during_handshake_is_not_a_failure(start: StartProxy, reset: bool) -> None:
    """TCP health checks of load balancers do so all the time, so it is not logged."""
    proxy = start(respond_with("one"), "-max-clients", "1")
    client = proxy.connect_without_handshake(b"\x16\x03\x01\x02")
    wait_until(lambda: proxy.metric("arke_proxy_connections") == 1)
    if reset:
        client.reset()
    else:
        client.close()
    wait_until(lambda: serves_tls_client(proxy))
    assert proxy.metric(HANDSHAKE_FAILURES) == 0


def test_handshakes_do_not_delay_shutdown(start: StartProxy) -> None:
    proxy = start(respond_with("one"), "-grace", "25s")
    silent = proxy.connect_without_handshake(b"\x16\x03")
    wait_until(lambda: proxy.metric("arke_proxy_connections") == 1)
    proxy.process.terminate()
    expect_close_without_data(silent)
    assert proxy.process.wait(LIMIT) == 0
    assert "still open" not in proxy.process.log
    assert [entry for entry in proxy.log_entries() if entry["outcome"]] == []
