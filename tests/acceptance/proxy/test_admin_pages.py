"""The proxy's admin pages, access log and error pages."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from support.admin_pages import fetch, metric_value
from support.backend_scripts import UPGRADE_REQUEST, UPGRADE_RESPONSE
from support.backends import GET, respond_ok
from support.connection import Connection
from support.deployment import new_deployment
from support.ports import free_port
from support.processes import start_process
from support.programs import program
from support.proxy_harness import ProxyHarness, harness_for
from support.proxy_process import worker_pids
from support.relays import Relays
from support.waiting import LIMIT, wait_until


@pytest.fixture
def admin_port() -> int:
    return free_port()


@pytest.fixture
def harness(relays: Relays, admin_port: int) -> Iterator[ProxyHarness]:
    with harness_for(relays.start(), "web", "-admin", f"127.0.0.1:{admin_port}") as harness:
        yield harness


def wait_for_readyz(port: int, *, ready: bool) -> bytes:
    """Wait until /-/readyz answers 200, or 503 if not `ready`; return its body."""
    wait_until(lambda: fetch(port, "/-/readyz")[0].status == (200 if ready else 503))
    return fetch(port, "/-/readyz")[1]


def test_readyz_depends_on_relay_and_healthz_does_not(
    harness: ProxyHarness, admin_port: int
) -> None:
    assert wait_for_readyz(admin_port, ready=True) == b"OK\n"
    harness.start_backends(respond_ok)
    harness.get()  # a known backend does not make the proxy ready without its relay
    harness.relay.process.terminate()
    assert wait_for_readyz(admin_port, ready=False) == b"The proxy is not connected to its relay.\n"
    response, body = fetch(admin_port, "/-/healthz")
    assert (response.status, body) == (200, b"OK\n")


@pytest.mark.parametrize("choose", ["auto", "watch", "ask"])
def test_proxy_is_ready_while_a_cluster_has_members(
    relays: Relays, admin_port: int, choose: str
) -> None:
    relay = relays.start()
    flags = ("-port", str(relay.port), "-choose", choose, "-admin", f"127.0.0.1:{admin_port}")
    with new_deployment() as deployment:
        deployment.proxy(*flags, "-cluster", "web", "-route", "other.example=other")
        no_backends = b'No backends in clusters "other", "web".\n'
        assert wait_for_readyz(admin_port, ready=False) == no_backends
        member = deployment.member(relay, http="127.0.0.1:9")
        assert wait_for_readyz(admin_port, ready=True) == b"OK\n"
        deployment.stop_member(member)
        assert wait_for_readyz(admin_port, ready=False) == no_backends


def test_requests_are_counted_by_cluster_code_and_backend(
    harness: ProxyHarness, admin_port: int
) -> None:
    (backend,) = harness.start_backends(respond_ok)
    for _ in range(3):
        assert harness.get()[1] == b"ok"
    harness.exchange(b"GET / HTTP/1.1\r\n\r\n")
    text = fetch(admin_port, "/-/metrics")[1].decode()
    labels = f'backend="{backend.address}",cluster="web",code="200"'
    assert f"arke_proxy_requests_total{{{labels}}} 3.0" in text
    assert 'arke_proxy_requests_total{backend="",cluster="",code="400"} 1.0' in text
    assert 'arke_proxy_failures_total{reason="bad_request"} 1.0' in text
    assert 'arke_proxy_phase_seconds_count{phase="answer"} 3.0' in text
    assert 'arke_proxy_workers{state="serving"} 1.0' in text


def test_backends_page_is_json(harness: ProxyHarness, admin_port: int) -> None:
    response, body = fetch(admin_port, "/-/backends")
    assert response.getheader("content-type") == "application/json"
    (pid,) = worker_pids(harness.process)
    assert [worker["worker"] for worker in json.loads(body)["workers"]] == [pid]


def test_admin_listener_serves_admin_pages_only(harness: ProxyHarness, admin_port: int) -> None:
    assert fetch(admin_port, "/")[0].status == 404
    assert b"/-/metrics" in fetch(admin_port, "/")[1]
    assert fetch(admin_port, "/-/healthz", "POST")[0].status == 405
    assert fetch(admin_port, "/-/healthz", "HEAD")[1] == b""
    assert fetch(admin_port, "/-/health z")[0].status == 400
    harness.start_backends(respond_ok)
    assert harness.get("/-/healthz")[1] == b"ok"  # a path of the backend on the public listener


def test_idle_admin_connections_are_evicted(harness: ProxyHarness, admin_port: int) -> None:
    address = ("127.0.0.1", admin_port)
    connections = [Connection(socket.create_connection(address, LIMIT)) for _ in range(20)]
    for connection in connections[:3]:
        connection.send(b"GET /-/heal")
    assert fetch(admin_port, "/-/healthz")[0].status == 200
    for connection in connections:
        connection.close()


def test_counters_of_all_workers_survive_a_reload(relays: Relays, admin_port: int) -> None:
    flags = ("-workers", "2", "-admin", f"127.0.0.1:{admin_port}")
    with harness_for(relays.start(), "web", *flags) as harness:
        harness.start_backends(respond_ok)
        for _ in range(10):
            harness.get()
        wait_until(lambda: metric_value(admin_port, "arke_proxy_requests_total") == 10)
        old_pids = worker_pids(harness.process)
        harness.process.signal(signal.SIGHUP)
        harness.process.wait_for_line("the new workers are ready", LIMIT)
        wait_until(lambda: set(worker_pids(harness.process)).isdisjoint(old_pids))
        wait_until(lambda: metric_value(admin_port, "arke_proxy_workers") == 2)
        assert metric_value(admin_port, "arke_proxy_requests_total") == 10
        harness.get()
        wait_until(lambda: metric_value(admin_port, "arke_proxy_requests_total") == 11)


def wait_for_lines(path: Path, count: int) -> list[bytes]:
    """Wait until the log has `count` lines; return all of them."""
    wait_until(lambda: path.exists() and path.read_bytes().count(b"\n") >= count)
    return path.read_bytes().splitlines()


def test_access_log_in_combined_format(relays: Relays, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    with harness_for(relays.start(), "web", "-access-log", str(path)) as harness:
        harness.start_backends(respond_ok)
        harness.exchange(
            b'GET /a?"b HTTP/1.1\r\nHost: x\r\nUser-Agent: a "b" \xe9\r\nReferer: y\r\n\r\n'
        )
        harness.exchange(b"GET / HTTP/1.1\r\n\r\n")
        answered, rejected = wait_for_lines(path, 2)
        prefix = rb"127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "
        request = rb'"GET /a\?\\x22b HTTP/1\.1" 200 2 "y" "a \\x22b\\x22 \\xe9"'
        assert re.fullmatch(prefix + request, answered)
        assert re.fullmatch(prefix + rb'"- - HTTP/1\.1" 400 - "-" "-"', rejected)


@pytest.mark.parametrize("upgraded", [False, True], ids=["request", "WebSocket"])
def test_requests_aborted_at_shutdown_are_logged(tmp_path: Path, upgraded: bool) -> None:
    path = tmp_path / "access.log"
    request_received = threading.Event()

    def hold_connection(connection: Connection) -> None:
        connection.read_head()
        if upgraded:
            connection.send(UPGRADE_RESPONSE)
        request_received.set()
        connection.read_to_end()

    flags = ("-access-log", str(path), "-access-format", "json", "-grace", "200ms")
    with new_deployment() as deployment:
        proxy = deployment.proxy(
            "-choose", "static", "-backend", deployment.backend(hold_connection).address, *flags
        )
        connection = proxy.connect()
        connection.send(UPGRADE_REQUEST.replace(b"GET / ", b"GET /slow "))
        if upgraded:
            assert connection.read_head().startswith(b"HTTP/1.1 101 ")
        assert request_received.wait(LIMIT)
        proxy.process.terminate()
        proxy.process.wait(LIMIT)
        connection.close()
    (line,) = path.read_bytes().splitlines()
    entry = json.loads(line)
    assert (entry["target"], entry["status"]) == ("/slow", 101 if upgraded else 0)
    assert entry.get("outcome") == (None if upgraded else "response_aborted")


def test_access_log_in_json(relays: Relays, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    flags = ("-access-log", str(path), "-access-format", "json")
    with harness_for(relays.start(), "web", *flags) as harness:
        (backend,) = harness.start_backends(respond_ok)
        harness.get("/x")
        harness.cluster.answers = ["nonsense"]
        harness.get("/y")
        entries: list[dict[str, Any]] = [json.loads(line) for line in wait_for_lines(path, 2)]
    succeeded, failed = entries
    assert succeeded["target"] == "/x"
    assert succeeded["backend"] == backend.address
    assert (succeeded["status"], succeeded["bytes_out"], succeeded["attempts"]) == (200, 2, 1)
    assert list(succeeded["ms"]) == ["choose", "connect", "answer", "body", "total"]
    assert (failed["status"], failed["outcome"], failed["backend"]) == (
        502,
        "bad_cluster_reply",
        None,
    )


PUT = b"PUT /large HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\n"
REJECTED = {
    "malformed head": (
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "-",
        "it has two Host fields",
    ),
    "Content-Length too large": (
        PUT + b"Content-Length: 9\r\n\r\n",
        "/large",
        "its body is larger than 8 bytes",
    ),
    "chunked body too large": (
        PUT + b"Transfer-Encoding: chunked\r\n\r\n9\r\n",
        "/large",
        "its body is larger than 8 bytes",
    ),
}


@pytest.mark.parametrize(("raw", "target", "reason"), REJECTED.values(), ids=REJECTED)
def test_rejected_request_is_logged_with_reason(
    tmp_path: Path, raw: bytes, target: str, reason: str
) -> None:
    path = tmp_path / "access.log"
    flags = ("-access-log", str(path), "-access-format", "json", "-max-body", "8")
    with new_deployment() as deployment:
        proxy = deployment.proxy(
            "-choose", "static", "-backend", deployment.backend(respond_ok).address, *flags
        )
        response, body = proxy.request(raw)
        wait_until(lambda: path.read_bytes().endswith(b"\n"))
    entry = json.loads(path.read_bytes())
    assert (entry["status"], entry["target"]) == (response.status, target)
    assert entry["detail"] == f"The request is rejected: {reason}."
    if target == "-":
        assert body.decode() == f"The request is rejected: {reason}.\n"
    else:
        assert entry["method"] == "PUT"
        assert json.loads(body)["detail"] == entry["detail"]


def test_last_requests_are_logged_before_exit(relays: Relays, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    with harness_for(relays.start(), "web", "-access-log", str(path)) as harness:
        harness.start_backends(respond_ok)
        harness.get("/last")
        harness.process.terminate()
        assert harness.process.wait(LIMIT) == 0
    assert b"GET /last " in path.read_bytes()


def test_access_log_is_reopened_after_rotation(relays: Relays, tmp_path: Path) -> None:
    path, rotated = tmp_path / "access.log", tmp_path / "access.log.1"
    with harness_for(relays.start(), "web", "-access-log", str(path), "-workers", "2") as harness:
        harness.start_backends(respond_ok)
        harness.get("/1")
        wait_for_lines(path, 1)
        path.rename(rotated)
        harness.process.signal(signal.SIGUSR1)
        wait_until(path.exists)
        wait_until(lambda: harness.get("/2") is not None and path.read_bytes().count(b"\n") > 0)
        path.rename(tmp_path / "access.log.2")
        harness.process.signal(signal.SIGHUP)
        harness.process.wait_for_line("the new workers are ready", LIMIT)
        harness.get("/3")
        assert b"GET /3 " in wait_for_lines(path, 1)[-1]


def test_access_log_on_stdout(relays: Relays) -> None:
    with harness_for(
        relays.start(), "web", "-access-log", "-", "-access-format", "common"
    ) as harness:
        harness.start_backends(respond_ok)
        harness.get("/x")
        harness.process.wait_for_line(r'"GET /x HTTP/1\.1" 200 2$', LIMIT)


def test_unwritable_access_log_is_a_one_line_error(relays: Relays, tmp_path: Path) -> None:
    flags = ["-cluster", "web", "-port", str(relays.start().port), "-listen", "127.0.0.1:0"]
    flags += ["-workers", "2", "-access-log", str(tmp_path / "no" / "log")]
    process = start_process("proxy", [*program("proxy"), *flags])
    assert process.wait(LIMIT) == 2
    assert process.log.startswith("proxy: -access-log ")
    assert process.log.count("\n") == 1
    process.close()


def test_access_log_pipe_without_reader_is_a_one_line_error(tmp_path: Path) -> None:
    pipe = tmp_path / "log"
    os.mkfifo(pipe)
    flags = ["-choose", "static", "-backend", "127.0.0.1:9", "-listen", "127.0.0.1:0"]
    process = start_process("proxy", [*program("proxy"), *flags, "-access-log", str(pipe)])
    assert process.wait(LIMIT) == 2
    expected = f"proxy: -access-log {pipe}: the named pipe has no reader; start its reader first\n"
    assert process.log == expected
    process.close()


def test_access_log_to_named_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "log"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    with new_deployment() as deployment, os.fdopen(reader, encoding="utf-8") as log:
        backend = deployment.backend(respond_ok)
        flags = ("-choose", "static", "-backend", backend.address, "-access-log", str(pipe))
        assert deployment.proxy(*flags).body() == "ok"
        assert '"GET / HTTP/1.1" 200 2 ' in log.readline()


def test_via_is_added_to_responses_of_backends_only(relays: Relays) -> None:
    """A backend can imitate the proxy's error pages, but only its responses have a Via field."""

    def imitate_own_error(connection: Connection) -> None:
        connection.read_head()
        fields = b'Server: arke\r\nServer-Timing: arke;desc="no_backend"\r\n'
        connection.send(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n" + fields + b"\r\n")

    with harness_for(relays.start(), "web") as harness:
        harness.start_backends(imitate_own_error)
        response, _ = harness.get()
        assert response.getheader("server-timing") == 'arke;desc="no_backend"'
        assert response.getheader("via") == "1.1 arke"
        harness.cluster.answers = ["nonsense"]
        response, _ = harness.exchange(GET)
        assert response.getheader("server-timing") == 'arke;desc="bad_cluster_reply"'
        assert response.getheader("via") is None


def test_error_format_follows_accept(relays: Relays) -> None:
    with harness_for(relays.start(), "web") as harness:
        harness.cluster.answers = ["nonsense <b>"]
        message = "Cluster web answered the request for a backend with b'nonsense <b>'"

        def get(accept: str) -> tuple[HTTPResponse, str]:
            head = f"GET / HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n"
            response, body = harness.exchange(head.encode())
            assert response.status == 502
            assert response.getheader("server-timing") == 'arke;desc="bad_cluster_reply"'
            return response, body.decode()

        response, body = get("*/*")
        assert response.getheader("content-type") == "text/plain; charset=utf-8"
        assert body.startswith(message)
        response, body = get("application/json")
        assert response.getheader("content-type") == "application/json"
        assert json.loads(body)["error"] == "bad_cluster_reply"
        response, body = get("text/html,application/xhtml+xml,*/*;q=0.8")
        assert response.getheader("content-type") == "text/html; charset=utf-8"
        assert "nonsense &lt;b&gt;" in body
        harness.start_backends(respond_ok)
        assert harness.get()[0].getheader("server-timing") is None
