"""Reloads, workers that die, and several workers on one port."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.backends import GET, OK, Script, respond_ok
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

TAKEN_OVER = "the new workers are ready"


def load(harness: ProxyHarness, connections: int) -> Load:
    return Load(harness.dial, http1_requests, connections)


def reload(harness: ProxyHarness, times: int) -> None:
    """Send SIGHUP, and wait until new workers have taken over `times` times in total."""
    harness.process.signal(signal.SIGHUP)
    wait_until(lambda: harness.process.log.count(TAKEN_OVER) == times)


def running_process(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("size", [1, 2])
def test_reload_under_load_fails_no_request(relays: Relays, size: int) -> None:
    with harness_for(relays.start(), "web", "-workers", str(size)) as harness:
        harness.start_backends(answer_posts)
        first = worker_pids(harness.process)
        assert len(first) == size
        with load(harness, 8) as clients:
            clients.wait_for_responses()
            for times in (1, 2, 3):
                before = worker_pids(harness.process)
                reload(harness, times)
                clients.wait_for_responses()
                wait_until(lambda old=before: not any(map(running_process, old)))
        assert not clients.failures
        assert clients.connections > 3 * 8  # each reload replaces every connection
        assert len(worker_pids(harness.process)) == size
        assert harness.process.log.count("proxy listening") == 1


def test_reload_under_tls_and_http2_load_fails_no_request(relays: Relays, tmp_path: Path) -> None:
    """HTTP/2 connections get GOAWAY when idle, or after some seconds."""
    certificate = write_certificate(tmp_path, "a.example", file="a")
    flags = ("-tls-listen", "127.0.0.1:0", "-cert", certificate)

    def by_tls(*protocols: str) -> Connect:
        context = ssl.create_default_context(cafile=tmp_path / "a.pem")
        context.set_alpn_protocols(protocols)
        return lambda: connect_tls(harness.tls_port, context, "a.example")

    with harness_for(relays.start(), "web", *flags) as harness, ExitStack() as stack:
        harness.start_backends(answer_posts)
        loads = [
            Load(by_tls("http/1.1"), http1_requests, 2),
            Load(by_tls("http/1.1"), http1_single_requests, 2),
            Load(by_tls("h2"), http2_requests, 2),
            Load(harness.dial, http2_requests, 2),
        ]
        for load in loads:
            stack.enter_context(load)
        for times in (1, 2):
            (old,) = worker_pids(harness.process)
            reload(harness, times)
            wait_until(lambda old=old: not running_process(old))
            for load in loads:
                load.wait_for_responses()
        assert [load.failures for load in loads] == [[]] * len(loads)
        assert all(load.connections >= 2 * 3 for load in loads)  # each reload replaces them
        assert "still open" not in harness.process.log


def test_rolling_restarts_of_all_workers_fail_no_request(relays: Relays) -> None:
    with harness_for(relays.start(), "web", "-workers", "2") as harness:
        harness.start_backends(answer_posts)
        with load(harness, 4) as clients:
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
    asked, go = threading.Event(), threading.Event()

    def slow(connection: Connection) -> None:
        connection.read_head()
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nha\r\n")
        asked.set()
        assert go.wait(LIMIT)
        connection.send(b"2\r\nlf\r\n0\r\n\r\n")
        connection.read_to_end()

    with harness_for(relays.start(), "web", "-grace", "2s") as harness:
        harness.start_backends(slow)
        (old,) = worker_pids(harness.process)
        stream = harness.connect()
        stream.send(GET)
        assert asked.wait(LIMIT)
        stream.read_until(b"ha\r\n")
        reload(harness, 1)
        harness.start_backends(respond_ok)
        assert harness.get()[1] == b"ok"
        assert running_process(old)
        go.set()
        assert stream.read_until(b"0\r\n\r\n")
        stream.close()
        wait_until(lambda: not running_process(old))


def talks_or_takes_posts(connection: Connection) -> None:
    """A backend script that echoes on WebSockets."""
    while head := connection.read_head():
        if head.startswith(b"POST "):
            connection.read_exactly(4)
            connection.send(OK)
            continue
        connection.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n")
        connection.send(b"Upgrade: websocket\r\n\r\n")
        while data := connection.read_until(b"\n"):
            connection.send(data)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("by_tls", [False, True])
def test_websockets_survive_reloads_under_load(
    relays: Relays, tmp_path: Path, size: int, by_tls: bool
) -> None:
    certificate = write_certificate(tmp_path, "a.example", file="a")
    context = ssl.create_default_context(cafile=tmp_path / "a.pem")
    flags = ("-tls-listen", "127.0.0.1:0", "-cert", certificate, "-workers", str(size))
    upgrade = b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

    def dial() -> Connection:
        return connect_tls(harness.tls_port, context, "a.example") if by_tls else harness.dial()

    with harness_for(relays.start(), "web", *flags) as harness, ExitStack() as stack:
        harness.start_backends(talks_or_takes_posts)
        clients = stack.enter_context(Load(dial, http1_requests, 4))
        sockets: list[Connection] = []
        for times in (1, 2, 3):
            clients.wait_for_responses()
            for _ in range(2 * size):
                connection = dial()
                stack.callback(connection.close)
                connection.send(GET.replace(b"\r\n\r\n", upgrade))
                assert connection.read_head().startswith(b"HTTP/1.1 101 ")
                sockets.append(connection)
            reload(harness, times)
            for number, connection in enumerate(sockets):
                connection.send(b"%d\n" % number)
                assert connection.read_until(b"\n") == b"%d\n" % number
        clients.wait_for_responses()
        assert not clients.failures
        assert len(worker_pids(harness.process)) >= size + 3  # each generation has open WebSockets
        for connection in sockets:
            connection.close()
        wait_until(lambda: len(worker_pids(harness.process)) == size)


def test_rolling_restart_of_relays_loses_no_request_and_no_websocket(relays: Relays) -> None:
    near, far = relays.start_pair()
    upgrade = b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    with new_deployment() as deployment:
        for relay in (near, far):
            backend = deployment.backend(talks_or_takes_posts, host=relay.address)
            deployment.member(relay, http=backend.address)
        proxy = deployment.proxy("-cluster", "web", "-port", str(near.port), "-choose", "watch")
        talk = proxy.connect()
        talk.send(GET.replace(b"\r\n\r\n", upgrade))
        assert talk.read_head().startswith(b"HTTP/1.1 101 ")
        with Load(proxy.connect, http1_requests, 4) as clients:
            for relay, other in ((far, near), (near, far)):
                clients.wait_for_responses()
                relay.process.terminate()
                relay.process.wait(LIMIT)
                again = relays.start(address=relay.address, port=relay.port, join=[other])
                again.process.wait_for_line("peer linked", LIMIT)
                again.process.wait_for_line("program registered", LIMIT)
                clients.wait_for_responses()
                talk.send(b"here\n")
                assert talk.read_until(b"\n") == b"here\n"
        assert not clients.failures
        talk.close()


def test_connections_are_cut_after_linger_time(relays: Relays) -> None:
    asked = threading.Event()

    def silent(connection: Connection) -> None:
        connection.read_head()
        asked.set()
        connection.read_to_end()

    with harness_for(relays.start(), "web", "-linger", "1s") as harness:
        harness.start_backends(silent)
        (old,) = worker_pids(harness.process)
        connection = harness.connect()
        connection.send(GET)
        assert asked.wait(LIMIT)
        reload(harness, 1)
        with pytest.raises(ConnectionResetError):
            connection.read_to_end()
        wait_until(lambda: not running_process(old))
        assert "that are still open connections=1 seconds=1" in harness.process.log


@pytest.mark.parametrize("by_tls", [False, True])
def test_stop_lets_retired_workers_finish(relays: Relays, tmp_path: Path, by_tls: bool) -> None:
    asked, stopping = threading.Event(), threading.Event()

    def slow(connection: Connection) -> None:
        connection.read_head()
        asked.set()
        assert stopping.wait(LIMIT)
        connection.send(OK)

    flags = ["-tls-listen", "127.0.0.1:0", "-cert", write_certificate(tmp_path, "a.example")]
    with harness_for(relays.start(), "web", *(flags if by_tls else [])) as harness:
        harness.start_backends(slow)
        connection = harness.connect()
        connection.send(GET)
        assert asked.wait(LIMIT)
        reload(harness, 1)
        harness.process.terminate()
        harness.process.wait_for_line("worker stopping", LIMIT)
        stopping.set()
        assert connection.read_response()[1] == b"ok"
        connection.close()
        assert harness.process.wait(LIMIT) == 0
        assert "Traceback" not in harness.process.log


def test_stop_ends_retired_workers_after_grace_period(relays: Relays) -> None:
    asked = threading.Event()

    def silent(connection: Connection) -> None:
        connection.read_head()
        asked.set()
        connection.read_to_end()

    with harness_for(relays.start(), "web", "-grace", "1s") as harness:
        harness.start_backends(silent)
        connection = harness.connect()
        connection.send(GET)
        assert asked.wait(LIMIT)
        reload(harness, 1)
        all_of_them = worker_pids(harness.process)
        assert len(all_of_them) == 2
        harness.process.terminate()
        assert harness.process.wait(LIMIT) == 0
        assert not any(map(running_process, all_of_them))


def named(name: bytes) -> Script:
    def script(connection: Connection) -> None:
        while connection.read_head():
            connection.send(OK.replace(b"ok", name))

    return script


def test_sticky_cookies_are_valid_after_a_reload(relays: Relays) -> None:
    with harness_for(relays.start(), "web", "-sticky", "home") as harness:
        harness.start_backends(named(b"n1"), named(b"n2"))
        response, home = harness.get()
        cookie = response.getheader("set-cookie", "").partition(";")[0].encode()
        again = GET.replace(b"\r\n\r\n", b"\r\nCookie: " + cookie + b"\r\n\r\n")
        assert cookie.startswith(b"home=")
        reload(harness, 1)
        # New workers accept the cookie after the cluster has named that backend to them.
        wait_until(lambda: {harness.exchange(again)[1] for _ in range(30)} == {home})


def test_failed_reload_keeps_old_workers(relays: Relays) -> None:
    relay = relays.start()
    with harness_for(relay, "web") as harness:
        harness.start_backends(respond_ok)
        before = worker_pids(harness.process)
        relay.process.terminate()  # without a relay new workers cannot become ready
        relay.process.wait(LIMIT)
        harness.process.signal(signal.SIGHUP)
        harness.process.wait_for_line("reload failed: the old workers continue reason=", 2 * LIMIT)
        wait_until(lambda: worker_pids(harness.process) == before)
        relays.start(port=relay.port)
        wait_until(lambda: harness.get()[1] == b"ok")
        reload(harness, 1)
        assert harness.get()[1] == b"ok"


def test_killed_worker_is_restarted_and_port_stays_open(relays: Relays) -> None:
    with harness_for(relays.start(), "web") as harness:
        harness.start_backends(respond_ok)
        (old,) = worker_pids(harness.process)
        os.kill(old, signal.SIGKILL)
        harness.process.wait_for_line(
            f'restarting it worker={old} reason="was killed by SIGKILL"', LIMIT
        )
        assert harness.get()[1] == b"ok"  # it waited in the accept queue
        (new,) = worker_pids(harness.process)
        harness.process.wait_for_line(f"worker ready worker={new}", LIMIT)
        assert harness.process.log.count("proxy listening") == 1


def test_workers_exit_when_master_is_killed(relays: Relays) -> None:
    with harness_for(relays.start(), "web", "-workers", "2") as harness:
        orphans = worker_pids(harness.process)
        harness.process.kill()
        harness.process.wait(LIMIT)
        wait_until(lambda: not any(map(running_process, orphans)))


def test_inherited_child_process_is_not_taken_for_a_worker(relays: Relays) -> None:
    words = ["-cluster", "web", "-port", str(relays.start().port), "-listen", "127.0.0.1:0"]
    shell = ["sh", "-c", 'sleep 1000 & exec "$@"', "sh", *program("proxy"), *words]
    process = start_process("proxy", shell)
    process.wait_for_line("proxy listening", LIMIT)
    other, worker = worker_pids(process)
    os.kill(other, signal.SIGKILL)
    wait_until(lambda: worker_pids(process) == [worker])  # the other one has been reaped
    process.terminate()
    assert process.wait(LIMIT) == 0
    process.close()


def test_start_error_is_logged_once_for_all_workers(relays: Relays) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        words = ["-cluster", "a", "-listen", "127.0.0.1:0", "-port", str(port), "-workers", "3"]
        process = start_process("proxy", [*program("proxy"), *words])
        other.accept()[0].close()
        other.close()
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
