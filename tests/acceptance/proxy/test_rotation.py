"""Failing backends are ejected from rotation, and recover."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.backend_scripts import static_flags
from support.backends import GET, respond_with
from support.connection import Connection
from support.deployment import Deployment
from support.ports import free_port
from support.processes import start_process
from support.programs import program
from support.waiting import LIMIT, wait_until


def test_all_static_backends_are_used(deployment: Deployment) -> None:
    backends = [deployment.backend(respond_with(body)) for body in ("one", "two", "three")]
    proxy = deployment.proxy(*static_flags(*backends))
    assert proxy.bodies() == {"one", "two", "three"}


def test_no_get_fails_when_backend_dies_under_load(deployment: Deployment) -> None:
    failing, *healthy = [deployment.backend(respond_with(body)) for body in ("one", "two", "three")]
    proxy = deployment.proxy(*static_flags(failing, *healthy))
    under_load = threading.Barrier(9, timeout=LIMIT)
    ejected = threading.Event()

    def get_in_a_loop() -> set[str]:
        connection = Connection(socket.create_connection(("127.0.0.1", proxy.port), LIMIT))
        for _ in range(30):  # earn retry budget, which is a share of earlier requests
            connection.send(GET)
            assert connection.read_response()[0].status == 200
        under_load.wait()
        bodies = set()
        while True:
            last_round = ejected.is_set()
            for _ in range(30):
                connection.send(GET)
                response, body = connection.read_response()
                assert response.status == 200
                bodies.add(body.decode())
            if last_round:
                connection.close()
                return bodies

    with ThreadPoolExecutor(8) as clients:
        results = [clients.submit(get_in_a_loop) for _ in range(8)]
        under_load.wait()
        failing.stop()
        proxy.process.wait_for_line(
            f"backend ejected from rotation backend={failing.address}", LIMIT
        )
        ejected.set()
        bodies = set().union(*(result.result(LIMIT) for result in results))
    assert {"two", "three"} <= bodies
    assert proxy.bodies() == {"two", "three"}


def test_refusing_backend_is_ejected_and_returns_after_a_trial_request(
    deployment: Deployment,
) -> None:
    healthy = deployment.backend(respond_with("healthy"))
    port = free_port()
    proxy = deployment.proxy(*static_flags(healthy), "-backend", f"127.0.0.1:{port}")
    assert proxy.bodies() == {"healthy"}
    proxy.process.wait_for_line(
        f'ejected from rotation backend=127.0.0.1:{port} reason="connecting to it failed"', LIMIT
    )
    deployment.backend(respond_with("recovered"), port=port)
    wait_until(lambda: "recovered" in proxy.bodies(3))
    proxy.process.wait_for_line(f"returned to rotation backend=127.0.0.1:{port}", LIMIT)


def test_only_backend_is_used_despite_failures(deployment: Deployment) -> None:
    backend = deployment.backend(respond_with("no", "503 Service Unavailable"))
    proxy = deployment.proxy(*static_flags(backend))
    for _ in range(8):
        assert proxy.request()[0].status == 503
    assert proxy.body() == "no"


# Active health checks.


def test_failed_health_checks_eject_until_one_passes(deployment: Deployment) -> None:
    healthy = threading.Event()

    def script(connection: Connection) -> None:
        while head := connection.read_head():
            fail_check = head.startswith(b"GET /healthz ") and not healthy.is_set()
            status = b"500 Oh No" if fail_check else b"200 OK"
            connection.send(b"HTTP/1.1 %b\r\nContent-Length: 4\r\n\r\nsick" % status)

    unhealthy = deployment.backend(script)
    proxy = deployment.proxy(
        *static_flags(unhealthy, deployment.backend(respond_with("healthy"))), "-check", "/healthz"
    )
    line = (
        f'ejected from rotation backend={unhealthy.address} reason="health check failed: status 500'
    )
    proxy.process.wait_for_line(line, LIMIT)
    assert proxy.bodies() == {"healthy"}
    healthy.set()
    proxy.process.wait_for_line(f"returned to rotation backend={unhealthy.address}", LIMIT)
    wait_until(lambda: proxy.bodies() == {"sick", "healthy"})


def test_panic_mode_when_all_health_checks_fail(deployment: Deployment) -> None:
    def script(connection: Connection) -> None:
        if connection.read_head().startswith(b"GET /healthz "):
            connection.send(b"no HTTP at all\r\n")
        else:
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    backends = [deployment.backend(script) for _ in range(2)]
    proxy = deployment.proxy(*static_flags(*backends), "-check", "/healthz")
    for backend in backends:
        line = f"ejected from rotation backend={backend.address} reason=.*failed: .* not HTTP/1"
        proxy.process.wait_for_line(line, LIMIT)
    assert proxy.request()[0].status == 200
    proxy.process.wait_for_line("panic mode", LIMIT)


# Flags.

STATIC = ["-choose", "static", "-backend", "127.0.0.1:1"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "give -cluster NAME"),
        (["-choose", "static"], "-choose static needs -backend"),
        (
            ["-choose", "static", "-backend", "example.com:80"],
            "-backend must be IP:PORT (got example.com",
        ),
        (
            ["-choose", "static", "-backend", "127.0.0.1:0"],
            "-backend must be IP:PORT (got 127.0.0.1",
        ),
        (["-cluster", "a", "-backend", "127.0.0.1:1"], "-backend needs -choose static"),
        (["-route", "a"], "-route must be HOST/PATH=CLUSTER"),
        (["-route", "a=b", "-route", "A=c"], "two -route flags have the same host and path"),
        (["-cluster", "a", "-choose", "ask", "-check", "/"], "-check and -via need addresses"),
        (["-cluster", "a", "-via", "foot"], "-via must be direct, tunnel or auto (got foot)"),
        (["-cluster", "a", "-check", "healthz"], "-check must be a path"),
        (["-cluster", "a", "-sticky", "a b"], "must be a cookie name"),
        (["-sticky", "s", "-route", "a/b;c=d"], "becomes a cookie's path: remove the ; from it"),
        (
            ["-cluster", "a", "-sticky", "s", "-sticky-key", "/nowhere"],
            "-sticky-key /nowhere: No such file",
        ),
        (["-cluster", "a", "-sticky-key", "/nowhere"], "-sticky-key needs -sticky COOKIE"),
        (["-cluster", "a", "-access-format", "json"], "-access-format needs -access-log FILE"),
        ([*STATIC, "-cluster", "a"], "give neither -cluster (ARKE_CLUSTER) nor -via"),
        ([*STATIC, "-via", "tunnel"], "give neither -cluster (ARKE_CLUSTER) nor -via"),
    ],
)
def test_conflicting_flags_are_a_one_line_error(flags: list[str], message: str) -> None:
    process = start_process("proxy", [*program("proxy"), "-listen", "127.0.0.1:0", *flags])
    assert process.wait(LIMIT) == 2
    assert process.log.startswith("proxy: ")
    assert message in process.log
    assert process.log.count("\n") == 1
    process.close()


def test_sticky_key_file_is_checked(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"k" * 40)
    flags = ["-cluster", "a", "-listen", "127.0.0.1:0", "-sticky", "s", "-sticky-key", str(key)]
    for mode, size, message in ((0o644, 40, "chmod 600"), (0o600, 8, "at least 16 bytes (got 8)")):
        key.write_bytes(b"k" * size)
        key.chmod(mode)
        process = start_process("proxy", [*program("proxy"), *flags])
        assert process.wait(LIMIT) == 2
        assert message in process.log
        process.close()
