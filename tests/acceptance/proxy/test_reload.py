"""Reloads with SIGHUP, restarts of workers, and how the proxy stops."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.backend_scripts import UPGRADE_REQUEST, UPGRADE_RESPONSE
from support.backends import GET, OK, respond_ok, respond_with
from support.certificates import write_certificate
from support.connection import Connection, connect_tls
from support.deployment import new_deployment
from support.http_load import (
    Connect,
    Load,
    answer_posts,
    http1_requests,
    http1_single_requests,
    http2_requests,
)
from support.processes import start_process
from support.programs import program
from support.proxy_harness import ProxyHarness, harness_for
from support.proxy_process import resident_bytes, start_cluster_proxy, worker_pids
from support.relays import Relays
from support.waiting import LIMIT, wait_until

NEW_WORKERS_READY = "the new workers are ready"


def http1_load(harness: ProxyHarness, connections: int) -> Load:
    return Load(harness.dial, http1_requests, connections)


def reload(harness: ProxyHarness, count: int) -> None:
    """Send SIGHUP; wait for the end of this reload, which is the proxy's `count`th."""
    harness.process.signal(signal.SIGHUP)
    wait_until(lambda: harness.process.log.count(NEW_WORKERS_READY) == count)


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_reload_under_load_fails_no_request(relays: Relays, workers: int) -> None:
    with harness_for(relays.start(), "web", "-workers", str(workers)) as harness:
        harness.start_backends(answer_posts)
        assert len(worker_pids(harness.process)) == workers
        with http1_load(harness, 8) as clients:
            clients.wait_for_responses()
            for count in (1, 2, 3):
                old_pids = worker_pids(harness.process)
                reload(harness, count)
                clients.wait_for_responses()
                wait_until(lambda pids=old_pids: not any(map(is_running, pids)))
        assert not clients.failures
        assert clients.connections > 3 * 8  # each reload replaces every connection
        assert len(worker_pids(harness.process)) == workers
        assert harness.process.log.count("proxy listening") == 1


def test_reload_under_tls_and_http2_load_fails_no_request(relays: Relays, tmp_path: Path) -> None:
    """On a reload an HTTP/2 connection gets GOAWAY once it is idle, or after some seconds."""
    certificate = write_certificate(tmp_path, "a.example", file="a")
    flags = ("-tls-listen", "127.0.0.1:0", "-cert", certificate)

    def tls_dialer(*protocols: str) -> Connect:
        context = ssl.create_default_context(cafile=tmp_path / "a.pem")
        context.set_alpn_protocols(protocols)
        return lambda: connect_tls(harness.tls_port, context, "a.example")

    with harness_for(relays.start(), "web", *flags) as harness, ExitStack() as stack:
        harness.start_backends(answer_posts)
        loads = [
            Load(tls_dialer("http/1.1"), http1_requests, 2),
            Load(tls_dialer("http/1.1"), http1_single_requests, 2),
            Load(tls_dialer("h2"), http2_requests, 2),
            Load(harness.dial, http2_requests, 2),
        ]
        for load in loads:
            stack.enter_context(load)
        for count in (1, 2):
            (old_pid,) = worker_pids(harness.process)
            reload(harness, count)
            wait_until(lambda pid=old_pid: not is_running(pid))
            for load in loads:
                load.wait_for_responses()
        assert [load.failures for load in loads] == [[]] * len(loads)
        # Each reload replaces every connection.
        assert all(load.connections >= 2 * 3 for load in loads)
        assert "still open" not in harness.process.log


def test_rolling_restarts_of_all_workers_fail_no_request(relays: Relays) -> None:
    with harness_for(relays.start(), "web", "-workers", "2") as harness:
        harness.start_backends(answer_posts)
        with http1_load(harness, 4) as clients:
            clients.wait_for_responses()
            for count, pid in enumerate(worker_pids(harness.process), 1):
                os.kill(pid, signal.SIGTERM)
                harness.process.wait_for_line(
                    rf'restarting it worker={pid} reason="exited with status 0"', LIMIT
                )
                wait_until(lambda: len(worker_pids(harness.process)) == 2)
                wait_until(lambda n=count: harness.process.log.count("worker ready") == n)
                clients.wait_for_responses()
        assert not clients.failures


def test_old_worker_finishes_running_requests_after_reload(relays: Relays) -> None:
    request_received, may_respond = threading.Event(), threading.Event()

    def respond_when_allowed(connection: Connection) -> None:
        connection.read_head()
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nha\r\n")
        request_received.set()
        assert may_respond.wait(LIMIT)
        connection.send(b"2\r\nlf\r\n0\r\n\r\n")
        connection.read_to_end()

    with harness_for(relays.start(), "web", "-grace", "2s") as harness:
        harness.start_backends(respond_when_allowed)
        (old_pid,) = worker_pids(harness.process)
        stream = harness.connect()
        stream.send(GET)
        assert request_received.wait(LIMIT)
        stream.read_until(b"ha\r\n")
        reload(harness, 1)
        harness.start_backends(respond_ok)
        assert harness.get()[1] == b"ok"
        assert is_running(old_pid)
        may_respond.set()
        assert stream.read_until(b"0\r\n\r\n")
        stream.close()
        wait_until(lambda: not is_running(old_pid))


def echo_websocket_or_respond_ok(connection: Connection) -> None:
    """Respond to POST requests; upgrade others to WebSockets and echo their lines."""
    while head := connection.read_head():
        if head.startswith(b"POST "):
            connection.read_exactly(4)
            connection.send(OK)
            continue
        connection.send(UPGRADE_RESPONSE)
        while data := connection.read_until(b"\n"):
            connection.send(data)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("use_tls", [False, True])
def test_websockets_survive_reloads_under_load(
    relays: Relays, tmp_path: Path, workers: int, use_tls: bool
) -> None:
    certificate = write_certificate(tmp_path, "a.example", file="a")
    context = ssl.create_default_context(cafile=tmp_path / "a.pem")
    flags = ("-tls-listen", "127.0.0.1:0", "-cert", certificate, "-workers", str(workers))

    def connect() -> Connection:
        return connect_tls(harness.tls_port, context, "a.example") if use_tls else harness.dial()

    with harness_for(relays.start(), "web", *flags) as harness, ExitStack() as stack:
        harness.start_backends(echo_websocket_or_respond_ok)
        clients = stack.enter_context(Load(connect, http1_requests, 4))
        websockets: list[Connection] = []
        for count in (1, 2, 3):
            clients.wait_for_responses()
            for _ in range(2 * workers):
                connection = connect()
                stack.callback(connection.close)
                connection.send(UPGRADE_REQUEST)
                assert connection.read_head().startswith(b"HTTP/1.1 101 ")
                websockets.append(connection)
            reload(harness, count)
            for number, connection in enumerate(websockets):
                connection.send(b"%d\n" % number)
                assert connection.read_until(b"\n") == b"%d\n" % number
        clients.wait_for_responses()
        assert not clients.failures
        # At least one worker of each old generation keeps running for its WebSockets.
        assert len(worker_pids(harness.process)) >= workers + 3
        for connection in websockets:
            connection.close()
        wait_until(lambda: len(worker_pids(harness.process)) == workers)


def test_rolling_restart_of_relays_loses_no_request_and_no_websocket(relays: Relays) -> None:
    near, far = relays.start_pair()
    with new_deployment() as deployment:
        for relay in (near, far):
            backend = deployment.backend(echo_websocket_or_respond_ok, host=relay.address)
            deployment.member(relay, http=backend.address)
        proxy = deployment.proxy("-cluster", "web", "-port", str(near.port), "-choose", "watch")
        websocket = proxy.connect()
        websocket.send(UPGRADE_REQUEST)
        assert websocket.read_head().startswith(b"HTTP/1.1 101 ")
        with Load(proxy.connect, http1_requests, 4) as clients:
            for relay, peer in ((far, near), (near, far)):
                clients.wait_for_responses()
                relay.process.terminate()
                relay.process.wait(LIMIT)
                restarted = relays.start(address=relay.address, port=relay.port, join=[peer])
                restarted.process.wait_for_line("peer linked", LIMIT)
                restarted.process.wait_for_line("program registered", LIMIT)
                clients.wait_for_responses()
                websocket.send(b"ping\n")
                assert websocket.read_until(b"\n") == b"ping\n"
        assert not clients.failures
        websocket.close()


def test_connections_are_reset_after_linger_time(relays: Relays) -> None:
    request_received = threading.Event()

    def hold_request(connection: Connection) -> None:
        connection.read_head()
        request_received.set()
        connection.read_to_end()

    with harness_for(relays.start(), "web", "-linger", "1s") as harness:
        harness.start_backends(hold_request)
        (old_pid,) = worker_pids(harness.process)
        connection = harness.connect()
        connection.send(GET)
        assert request_received.wait(LIMIT)
        reload(harness, 1)
        with pytest.raises(ConnectionResetError):
            connection.read_to_end()
        wait_until(lambda: not is_running(old_pid))
        assert "that are still open connections=1 seconds=1" in harness.process.log


@pytest.mark.parametrize("use_tls", [False, True])
def test_stop_lets_retired_workers_finish(relays: Relays, tmp_path: Path, use_tls: bool) -> None:
    request_received, proxy_stopping = threading.Event(), threading.Event()

    def respond_when_allowed(connection: Connection) -> None:
        connection.read_head()
        request_received.set()
        assert proxy_stopping.wait(LIMIT)
        connection.send(OK)

    flags = ["-tls-listen", "127.0.0.1:0", "-cert", write_certificate(tmp_path, "a.example")]
    with harness_for(relays.start(), "web", *(flags if use_tls else [])) as harness:
        harness.start_backends(respond_when_allowed)
        connection = harness.connect()
        connection.send(GET)
        assert request_received.wait(LIMIT)
        reload(harness, 1)
        harness.process.terminate()
        harness.process.wait_for_line("worker stopping", LIMIT)
        proxy_stopping.set()
        assert connection.read_response()[1] == b"ok"
        connection.close()
        assert harness.process.wait(LIMIT) == 0
        assert "Traceback" not in harness.process.log


def test_stop_ends_retired_workers_after_grace_period(relays: Relays) -> None:
    request_received = threading.Event()

    def hold_request(connection: Connection) -> None:
        connection.read_head()
        request_received.set()
        connection.read_to_end()

    with harness_for(relays.start(), "web", "-grace", "1s") as harness:
        harness.start_backends(hold_request)
        connection = harness.connect()
        connection.send(GET)
        assert request_received.wait(LIMIT)
        reload(harness, 1)
        old_and_new_pids = worker_pids(harness.process)
        assert len(old_and_new_pids) == 2
        harness.process.terminate()
        assert harness.process.wait(LIMIT) == 0
        assert not any(map(is_running, old_and_new_pids))


def test_sticky_cookies_are_valid_after_a_reload(relays: Relays) -> None:
    with harness_for(relays.start(), "web", "-sticky", "backend") as harness:
        harness.start_backends(respond_with("n1"), respond_with("n2"))
        response, sticky_backend = harness.get()
        cookie = response.getheader("set-cookie", "").partition(";")[0].encode()
        request = GET.replace(b"\r\n\r\n", b"\r\nCookie: " + cookie + b"\r\n\r\n")
        assert cookie.startswith(b"backend=")
        reload(harness, 1)
        # New workers accept the cookie after the cluster has named that backend to them.
        wait_until(lambda: {harness.exchange(request)[1] for _ in range(30)} == {sticky_backend})


def test_failed_reload_keeps_old_workers(relays: Relays) -> None:
    relay = relays.start()
    with harness_for(relay, "web") as harness:
        harness.start_backends(respond_ok)
        old_pids = worker_pids(harness.process)
        relay.process.terminate()  # without a relay new workers cannot become ready
        relay.process.wait(LIMIT)
        harness.process.signal(signal.SIGHUP)
        harness.process.wait_for_line("reload failed: the old workers continue reason=", 2 * LIMIT)
        wait_until(lambda: worker_pids(harness.process) == old_pids)
        relays.start(port=relay.port)
        wait_until(lambda: harness.get()[1] == b"ok")
        reload(harness, 1)
        assert harness.get()[1] == b"ok"


def test_killed_worker_is_restarted_and_port_stays_open(relays: Relays) -> None:
    with harness_for(relays.start(), "web") as harness:
        harness.start_backends(respond_ok)
        (old_pid,) = worker_pids(harness.process)
        os.kill(old_pid, signal.SIGKILL)
        harness.process.wait_for_line(
            f'restarting it worker={old_pid} reason="was killed by SIGKILL"', LIMIT
        )
        assert harness.get()[1] == b"ok"  # the connection has waited in the accept queue
        (new_pid,) = worker_pids(harness.process)
        harness.process.wait_for_line(f"worker ready worker={new_pid}", LIMIT)
        assert harness.process.log.count("proxy listening") == 1


def test_workers_exit_when_master_is_killed(relays: Relays) -> None:
    with harness_for(relays.start(), "web", "-workers", "2") as harness:
        pids = worker_pids(harness.process)
        harness.process.kill()
        harness.process.wait(LIMIT)
        wait_until(lambda: not any(map(is_running, pids)))


def test_inherited_child_process_is_not_taken_for_a_worker(relays: Relays) -> None:
    flags = ["-cluster", "web", "-port", str(relays.start().port), "-listen", "127.0.0.1:0"]
    command = ["sh", "-c", 'sleep 1000 & exec "$@"', "sh", *program("proxy"), *flags]
    process = start_process("proxy", command)
    process.wait_for_line("proxy listening", LIMIT)
    child, worker = worker_pids(process)
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: worker_pids(process) == [worker])  # the proxy has reaped the child
    process.terminate()
    assert process.wait(LIMIT) == 0
    process.close()


def test_start_error_is_logged_once_for_all_workers(relays: Relays) -> None:
    with socket.create_server(("127.0.0.1", 0)) as relay:
        port = relay.getsockname()[1]
        flags = ["-cluster", "a", "-listen", "127.0.0.1:0", "-port", str(port), "-workers", "3"]
        process = start_process("proxy", [*program("proxy"), *flags])
        relay.accept()[0].close()
        relay.close()
        assert process.wait(LIMIT) == 1
        assert process.log.count("proxy: ") == 1
        process.close()


def test_master_memory_is_small(relays: Relays) -> None:
    process, _ = start_cluster_proxy(relays.start(), "web")
    maps = Path(f"/proc/{process.machine_pid}/maps").read_text(encoding="utf-8")
    assert resident_bytes(process.machine_pid) < 20 * 1024 * 1024
    assert "uvloop" not in maps
    process.terminate()
    assert process.wait(LIMIT) == 0
    process.close()
