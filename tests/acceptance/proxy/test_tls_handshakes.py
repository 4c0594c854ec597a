"""Incomplete TLS handshakes: they count as client connections."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
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


class Door:
    """A proxy that listens with TLS, and its metrics."""

    def __init__(self, proxy: Proxy, admin: int, folder: Path) -> None:
        self.proxy = proxy
        self.log = folder / "access.log"
        self.port = tls_port(proxy.process)
        self._admin = admin
        self._context = ssl.create_default_context(cafile=folder / "a.pem")
        self._made: list[Connection] = []

    def silent(self, data: bytes = b"") -> Connection:
        """Connect, and say no more than `data`."""
        connection = self.proxy.connect(self.port)
        self._made.append(connection)
        connection.send(data)
        return connection

    def connect(self) -> Connection:
        connection = connect_tls(self.port, self._context, "a.example")
        self._made.append(connection)
        return connection

    def served(self) -> bool:
        """Whether a client by TLS gets through to the backend."""
        try:
            connection = self.connect()
        except OSError:
            return False
        connection.send(GET)
        done = connection.read_response()[1] == b"one"
        connection.close()
        return done

    def counted(self, metric: str) -> float:
        return metric_value(self._admin, metric)

    def logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text(encoding="ascii").splitlines()]

    def end(self) -> None:
        for connection in self._made:
            connection.close()


def ended_unanswered(connection: Connection) -> None:
    """Wait until the connection is closed or reset."""
    with suppress(ConnectionResetError):
        assert connection.read_to_end() == b""


Make = Callable[[Sequence[str], int | None], Door]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Start a proxy with these flags, and optionally few descriptors."""
    doors: list[Door] = []
    with new_deployment() as deployment:

        def made(flags: Sequence[str] = (), descriptors: int | None = None) -> Door:
            admin = free_port()
            backend = deployment.backend(respond_with("one"))
            words = ["-choose", "static", "-backend", backend.address]
            words += ["-cert", write_certificate(tmp_path, "a.example", file="a")]
            words += ["-tls-listen", "127.0.0.1:0", "-admin", f"127.0.0.1:{admin}"]
            words += ["-access-log", str(tmp_path / "access.log"), "-access-format", "json"]
            doors.append(
                Door(deployment.proxy(*words, *flags, descriptors=descriptors), admin, tmp_path)
            )
            return doors[-1]

        yield made
        for door in doors:
            door.end()


@pytest.mark.parametrize("flag", ["-max-clients", "-max-per-client"])
def test_handshakes_count_towards_client_limit(make: Make, flag: str) -> None:
    door = make((flag, "3"), None)
    silent = [door.silent() for _ in range(3)]
    wait_until(lambda: door.counted("arke_proxy_connections") == 3)
    assert not door.served()  # without TLS there is no response
    response, body = door.proxy.request()
    assert (response.status, body[:17]) == (503, b"The proxy has 3 c")
    assert door.counted(TOO_MANY) == 2
    wait_until(lambda: [one["status"] for one in door.logged()] == [0, 503])
    door.proxy.process.wait_for_line("The proxy has 3 c", LIMIT)
    silent[0].close()
    wait_until(door.served)
    assert door.counted(HANDSHAKE_FAILURES) == 0


def test_handshakes_cannot_exhaust_descriptors(make: Make) -> None:
    door = make((), 128)
    kept = door.connect()
    silent = [door.silent() for _ in range(200)]
    wait_until(lambda: door.counted(TOO_MANY) > 100)
    for _ in range(5):
        assert door.proxy.request()[0].status == 503
        kept.send(GET)
        assert kept.read_response()[1] == b"one"
    assert "descriptors are in use" not in door.proxy.process.log
    for one in silent:
        one.close()
    wait_until(door.served)


def test_handshake_times_out_like_request_head(make: Make) -> None:
    door = make((), None)
    half = door.silent(b"\x16\x03\x01\x02")
    silent = door.silent()
    for connection in (half, silent):
        ended_unanswered(connection)
    wait_until(lambda: door.counted(HANDSHAKE_FAILURES) == 2)
    assert door.counted("arke_proxy_connections") == 0


def test_failed_handshake_is_counted_and_logged(make: Make) -> None:
    door = make((), None)
    silent = door.silent(GET)
    with suppress(ConnectionResetError):
        silent.read_to_end()  # TLS sends an alert
    assert door.counted(HANDSHAKE_FAILURES) == 1
    wait_until(lambda: len(door.logged()) == 1)
    (line,) = door.logged()
    assert (line["client"], line["status"], line["outcome"]) == (
        "127.0.0.1",
        0,
        "tls_handshake_failed",
    )


@pytest.mark.parametrize("reset", [False, True])
def test_disconnect_during_handshake_is_not_a_failure(make: Make, reset: bool) -> None:
    """Health monitors do that all the time, so it is not logged."""
    door = make(("-max-clients", "1"), None)
    stranger = door.silent(b"\x16\x03\x01\x02")
    wait_until(lambda: door.counted("arke_proxy_connections") == 1)
    if reset:
        stranger.reset()
    else:
        stranger.close()
    wait_until(door.served)
    assert door.counted(HANDSHAKE_FAILURES) == 0


def test_handshakes_do_not_delay_shutdown(make: Make) -> None:
    door = make(("-grace", "25s"), None)
    silent = door.silent(b"\x16\x03")
    wait_until(lambda: door.counted("arke_proxy_connections") == 1)
    door.proxy.process.terminate()
    ended_unanswered(silent)
    assert door.proxy.process.wait(LIMIT) == 0
    assert "still open" not in door.proxy.process.log
    assert [one for one in door.logged() if one["outcome"]] == []
