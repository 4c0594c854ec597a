"""A proxy that is reloaded, whose workers die, and that shares its port among several."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.certificates import write_certificate
from support.http_load import OK, Connect, Load, by_http_1, by_http_1_once, by_http_2, takes_posts
from support.http_rig import (
    Connection,
    Rig,
    Script,
    connect_tls,
    resident,
    running,
    start_proxy,
    workers,
)
from support.programs import program
from support.publishers import site
from support.relays import LIMIT, Relays, eventually, start

GET = b"GET / HTTP/1.1\r\nHost: example\r\n\r\n"
TAKEN_OVER = "the new workers are ready"


def good(connection: Connection) -> None:
    while connection.head():
        connection.send(OK)


def load(rig: Rig, connections: int) -> Load:
    return Load(rig.dial, by_http_1, connections)


def reload(rig: Rig, times: int) -> None:
    """Send SIGHUP, and wait until new workers have taken over for so many times in all."""
    rig.process.signal(signal.SIGHUP)
    eventually(lambda: rig.process.log.count(TAKEN_OVER) == times)


def running_process(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("size", [1, 2])
def test_a_reload_under_load_fails_no_request(relays: Relays, size: int) -> None:
    with running(relays.start(), "web", "-workers", str(size)) as rig:
        rig.backends(takes_posts)
        first = workers(rig.process)
        assert len(first) == size
        with load(rig, 8) as visitors:
            visitors.goes_on()
            for times in (1, 2, 3):
                before = workers(rig.process)
                reload(rig, times)
                visitors.goes_on()
                eventually(lambda old=before: not any(map(running_process, old)))
        assert not visitors.failures
        assert visitors.connected > 3 * 8  # each reload has moved every connection
        assert len(workers(rig.process)) == size
        assert rig.process.log.count("proxy listening on") == 1


def test_a_reload_under_load_by_tls_and_http_2_fails_no_request(
    relays: Relays, tmp_path: Path
) -> None:
    """A connection of HTTP/2 is told to go when it has idled, or after some seconds."""
    certificate = write_certificate(tmp_path, "a.example", file="a")
    flags = ("-tls-listen", "127.0.0.1:0", "-cert", certificate)

    def by_tls(*protocols: str) -> Connect:
        context = ssl.create_default_context(cafile=tmp_path / "a.pem")
        context.set_alpn_protocols(protocols)
        return lambda: connect_tls(rig.tls_port, context, "a.example")

    with running(relays.start(), "web", *flags) as rig, ExitStack() as stack:
        rig.backends(takes_posts)
        loads = [
            Load(by_tls("http/1.1"), by_http_1, 2),
            Load(by_tls("http/1.1"), by_http_1_once, 2),
            Load(by_tls("h2"), by_http_2, 2),
            Load(rig.dial, by_http_2, 2),
        ]
        for load in loads:
            stack.enter_context(load)
        for times in (1, 2):
            (old,) = workers(rig.process)
            reload(rig, times)
            eventually(lambda old=old: not running_process(old))
            for load in loads:
                load.goes_on()
        assert [load.failures for load in loads] == [[]] * len(loads)
        assert all(load.connected >= 2 * 3 for load in loads)  # each reload has moved them
        assert "did not end" not in rig.process.log


def test_rolling_restarts_of_all_workers_fail_no_request(relays: Relays) -> None:
    with running(relays.start(), "web", "-workers", "2") as rig:
        rig.backends(takes_posts)
        with load(rig, 4) as visitors:
            visitors.goes_on()
            for count, pid in enumerate(workers(rig.process), 1):
                os.kill(pid, signal.SIGTERM)
                rig.process.wait_for_line(rf"worker {pid} exited with status 0; restarting", LIMIT)
                eventually(lambda: len(workers(rig.process)) == 2)
                eventually(lambda n=count: rig.process.log.count(" serves\n") == n)
                visitors.goes_on()
        assert not visitors.failures


def test_what_runs_during_a_reload_is_answered_by_the_old_process(relays: Relays) -> None:
    asked, go = threading.Event(), threading.Event()

    def slow(connection: Connection) -> None:
        connection.head()
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nha\r\n")
        asked.set()
        assert go.wait(LIMIT)
        connection.send(b"2\r\nlf\r\n0\r\n\r\n")
        connection.rest()

    with running(relays.start(), "web", "-grace", "2s") as rig:
        rig.backends(slow)
        (old,) = workers(rig.process)
        stream = rig.connect()
        stream.send(GET)
        assert asked.wait(LIMIT)
        stream.until(b"ha\r\n")
        reload(rig, 1)
        rig.backends(good)
        assert rig.get()[1] == b"ok"
        assert running_process(old)
        go.set()
        assert stream.until(b"0\r\n\r\n")
        stream.close()
        eventually(lambda: not running_process(old))


def talks_or_takes_posts(connection: Connection) -> None:
    """A script that says every line back to who asks for a WebSocket."""
    while head := connection.head():
        if head.startswith(b"POST "):
            connection.exactly(4)
            connection.send(OK)
            continue
        connection.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n")
        connection.send(b"Upgrade: websocket\r\n\r\n")
        while data := connection.until(b"\n"):
            connection.send(data)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("by_tls", [False, True])
def test_websockets_live_through_reloads_under_load(
    relays: Relays, tmp_path: Path, size: int, by_tls: bool
) -> None:
    certificate = write_certificate(tmp_path, "a.example", file="a")
    context = ssl.create_default_context(cafile=tmp_path / "a.pem")
    flags = ("-tls-listen", "127.0.0.1:0", "-cert", certificate, "-workers", str(size))
    upgrade = b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

    def dial() -> Connection:
        return connect_tls(rig.tls_port, context, "a.example") if by_tls else rig.dial()

    with running(relays.start(), "web", *flags) as rig, ExitStack() as stack:
        rig.backends(talks_or_takes_posts)
        visitors = stack.enter_context(Load(dial, by_http_1, 4))
        sockets: list[Connection] = []
        for times in (1, 2, 3):
            visitors.goes_on()
            for _ in range(2 * size):
                connection = dial()
                stack.callback(connection.close)
                connection.send(GET.replace(b"\r\n\r\n", upgrade))
                assert connection.head().startswith(b"HTTP/1.1 101 ")
                sockets.append(connection)
            reload(rig, times)
            for number, connection in enumerate(sockets):
                connection.send(b"%d\n" % number)
                assert connection.until(b"\n") == b"%d\n" % number
        visitors.goes_on()
        assert not visitors.failures
        assert len(workers(rig.process)) >= size + 3  # those of each generation that talk
        for connection in sockets:
            connection.close()
        eventually(lambda: len(workers(rig.process)) == size)


def test_a_rolling_restart_of_the_relays_loses_no_request_and_no_websocket(relays: Relays) -> None:
    near, far = relays.pair()
    upgrade = b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    with site() as web:
        for relay in (near, far):
            backend = web.backend(talks_or_takes_posts, host=relay.address)
            web.member(relay, http=backend.address)
        proxy = web.proxy("-cluster", "web", "-port", str(near.port), "-choose", "watch")
        talk = proxy.connect()
        talk.send(GET.replace(b"\r\n\r\n", upgrade))
        assert talk.head().startswith(b"HTTP/1.1 101 ")
        with Load(proxy.connect, by_http_1, 4) as visitors:
            for relay, other in ((far, near), (near, far)):
                visitors.goes_on()
                relay.process.terminate()
                relay.process.wait(LIMIT)
                again = relays.start(address=relay.address, port=relay.port, join=[other])
                again.process.wait_for_line("peer linked", LIMIT)
                again.process.wait_for_line("program registered", LIMIT)
                visitors.goes_on()
                talk.send(b"here\n")
                assert talk.until(b"\n") == b"here\n"
        assert not visitors.failures
        talk.close()


def test_what_does_not_end_after_a_reload_is_cut_when_it_has_lingered(relays: Relays) -> None:
    asked = threading.Event()

    def silent(connection: Connection) -> None:
        connection.head()
        asked.set()
        connection.rest()

    with running(relays.start(), "web", "-linger", "1s") as rig:
        rig.backends(silent)
        (old,) = workers(rig.process)
        connection = rig.connect()
        connection.send(GET)
        assert asked.wait(LIMIT)
        reload(rig, 1)
        with pytest.raises(ConnectionResetError):
            connection.rest()
        eventually(lambda: not running_process(old))
        assert "closing 1 connections still open after 1 s" in rig.process.log


@pytest.mark.parametrize("by_tls", [False, True])
def test_stopping_lets_retired_workers_finish(relays: Relays, tmp_path: Path, by_tls: bool) -> None:
    asked, stopping = threading.Event(), threading.Event()

    def slow(connection: Connection) -> None:
        connection.head()
        asked.set()
        assert stopping.wait(LIMIT)
        connection.send(OK)

    flags = ["-tls-listen", "127.0.0.1:0", "-cert", write_certificate(tmp_path, "a.example")]
    with running(relays.start(), "web", *(flags if by_tls else [])) as rig:
        rig.backends(slow)
        connection = rig.connect()
        connection.send(GET)
        assert asked.wait(LIMIT)
        reload(rig, 1)
        rig.process.terminate()
        rig.process.wait_for_line("stopping", LIMIT)
        stopping.set()
        assert connection.response()[1] == b"ok"
        connection.close()
        assert rig.process.wait(LIMIT) == 0
        assert "Traceback" not in rig.process.log


def test_stopping_ends_retired_workers_too(relays: Relays) -> None:
    asked = threading.Event()

    def silent(connection: Connection) -> None:
        connection.head()
        asked.set()
        connection.rest()

    with running(relays.start(), "web", "-grace", "1s") as rig:
        rig.backends(silent)
        connection = rig.connect()
        connection.send(GET)
        assert asked.wait(LIMIT)
        reload(rig, 1)
        all_of_them = workers(rig.process)
        assert len(all_of_them) == 2
        rig.process.terminate()
        assert rig.process.wait(LIMIT) == 0
        assert not any(map(running_process, all_of_them))


def named(name: bytes) -> Script:
    def script(connection: Connection) -> None:
        while connection.head():
            connection.send(OK.replace(b"ok", name))

    return script


def test_visitors_come_back_to_their_backend_after_a_reload(relays: Relays) -> None:
    with running(relays.start(), "web", "-sticky", "home") as rig:
        rig.backends(named(b"n1"), named(b"n2"))
        response, home = rig.get()
        cookie = response.getheader("set-cookie", "").partition(";")[0].encode()
        again = GET.replace(b"\r\n\r\n", b"\r\nCookie: " + cookie + b"\r\n\r\n")
        assert cookie.startswith(b"home=")
        reload(rig, 1)
        # New workers go where the cookie says once the cluster has named that backend to them.
        eventually(lambda: {rig.exchange(again)[1] for _ in range(30)} == {home})


def test_a_reload_that_fails_leaves_the_old_workers(relays: Relays) -> None:
    relay = relays.start()
    with running(relay, "web") as rig:
        rig.backends(good)
        before = workers(rig.process)
        relay.process.terminate()  # without a relay, nobody gets ready
        relay.process.wait(LIMIT)
        rig.process.signal(signal.SIGHUP)
        rig.process.wait_for_line(
            "reload failed: new workers: .*; the old ones continue", 2 * LIMIT
        )
        eventually(lambda: workers(rig.process) == before)
        relays.start(port=relay.port)
        eventually(lambda: rig.get()[1] == b"ok")
        reload(rig, 1)
        assert rig.get()[1] == b"ok"


def test_a_worker_that_is_killed_is_replaced_and_the_port_is_never_closed(relays: Relays) -> None:
    with running(relays.start(), "web") as rig:
        rig.backends(good)
        (old,) = workers(rig.process)
        os.kill(old, signal.SIGKILL)
        rig.process.wait_for_line(f"worker {old} was killed by SIGKILL; restarting", LIMIT)
        assert rig.get()[1] == b"ok"  # it waited in the kernel's queue
        (new,) = workers(rig.process)
        rig.process.wait_for_line(f"worker {new} is ready", LIMIT)
        assert rig.process.log.count("proxy listening on") == 1


def test_workers_leave_when_their_master_is_killed(relays: Relays) -> None:
    with running(relays.start(), "web", "-workers", "2") as rig:
        orphans = workers(rig.process)
        rig.process.kill()
        rig.process.wait(LIMIT)
        eventually(lambda: not any(map(running_process, orphans)))


def test_a_child_from_before_the_proxy_is_nobodys_worker(relays: Relays) -> None:
    words = ["-cluster", "web", "-port", str(relays.start().port), "-listen", "127.0.0.1:0"]
    shell = ["sh", "-c", 'sleep 1000 & exec "$@"', "sh", *program("proxy"), *words]
    process = start("proxy", shell)
    process.wait_for_line("proxy listening on", LIMIT)
    stranger, worker = workers(process)
    os.kill(stranger, signal.SIGKILL)
    eventually(lambda: workers(process) == [worker])  # the other one has been reaped
    process.terminate()
    assert process.wait(LIMIT) == 0
    process.close()


def test_several_workers_complain_once(relays: Relays) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        words = ["-cluster", "a", "-listen", "127.0.0.1:0", "-port", str(port), "-workers", "3"]
        process = start("proxy", [*program("proxy"), *words])
        stranger.accept()[0].close()
        stranger.close()
        assert process.wait(LIMIT) == 1
        assert process.log.count("proxy: ") == 1
        process.close()


def test_the_master_stays_small(relays: Relays) -> None:
    process, _ = start_proxy(relays.start(), "web")
    maps = Path(f"/proc/{process.machine_pid}/maps").read_text(encoding="utf-8")
    assert resident(process.machine_pid) < 20 * 1024 * 1024
    assert "uvloop" not in maps
    process.terminate()
    assert process.wait(LIMIT) == 0
    process.close()
