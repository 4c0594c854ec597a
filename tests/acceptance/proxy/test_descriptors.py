"""File descriptor limits: few descriptors, and none left at run time."""

from __future__ import annotations

import resource
import ssl
import threading
from pathlib import Path

import pytest

from support.backends import GET, Backend, respond_with
from support.certificates import write_certificate
from support.connection import Connection, connect_tls
from support.deployment import Deployment, Proxy
from support.proxy_process import tls_port, worker_pids
from support.raw_http2 import RawHttp2
from support.waiting import LIMIT, wait_until

pytestmark = pytest.mark.alone

FEW = 80
SHARE = 24  # of clients, and of connections to backends
UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
DESCRIPTOR_FIX = r"raise LimitNOFILE \(ulimit -n\), or lower -max-clients"


def static(*backends: Backend) -> list[str]:
    flags = ["-choose", "static"]
    for backend in backends:
        flags += ["-backend", backend.address]
    return flags


def next_descriptor(pid: int) -> int:
    """Return the number of the process's next descriptor."""
    used = {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    return min(set(range(len(used) + 1)) - used)


def test_clients_cannot_exhaust_descriptors(deployment: Deployment) -> None:
    """Accepted clients can be served, however many more connect."""

    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")

    proxy = deployment.proxy(*static(deployment.backend(script)), descriptors=FEW)
    connection = proxy.connect()
    connection.send(GET)
    assert connection.read_response()[0].status == 200
    others = [proxy.connect() for _ in range(100)]
    proxy.process.wait_for_line(
        f"The proxy has {SHARE} client connections, which is its limit", LIMIT
    )
    assert others[-1].read_response()[0].status == 503
    for _ in range(5):
        connection.send(GET)
        assert connection.read_response()[0].status == 200
    for one in (connection, *others):
        one.close()


def test_idle_backend_connections_are_closed_for_new_ones(deployment: Deployment) -> None:
    backends = [deployment.backend(respond_with(str(number))) for number in range(3 * SHARE)]
    proxy = deployment.proxy(*static(*backends), descriptors=FEW)
    connection = proxy.connect()
    answered = set()
    for _ in range(200):
        connection.send(GET)
        response, body = connection.read_response()
        assert response.status == 200, body
        answered.add(body)
    assert len(answered) > SHARE
    connection.close()


def test_http2_streams_cannot_exhaust_descriptors(deployment: Deployment) -> None:
    asked, go = threading.Semaphore(0), threading.Event()

    def held(connection: Connection) -> None:
        while connection.read_head():
            asked.release()
            assert go.wait(LIMIT)
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    proxy = deployment.proxy(*static(deployment.backend(held)), descriptors=FEW)
    client = RawHttp2(proxy.connect())
    streams = range(1, 200, 2)
    for stream in streams:
        client.get(stream)
    for _ in range(SHARE):
        assert asked.acquire(timeout=LIMIT)
    sentence = f"The proxy has {SHARE} connections to backends, which is its limit"
    proxy.process.wait_for_line(f"{sentence}: {DESCRIPTOR_FIX}", LIMIT)
    response, body = proxy.request()  # descriptors for clients are reserved
    assert (response.status, body) == (503, f"{sentence}.\n".encode())
    assert response.getheader("retry-after") == "1"
    go.set()
    answers = client.read_responses(*streams)
    assert sorted(fields[b":status"] for fields, _ in answers.values()) == sorted(
        [b"200"] * SHARE + [b"503"] * (len(streams) - SHARE)
    )
    assert proxy.body() == "ok"
    client.connection.close()


def test_closed_websockets_free_their_descriptors(deployment: Deployment) -> None:
    def echoing(connection: Connection) -> None:
        connection.read_head()
        connection.send(SWITCHED)
        connection.send(connection.read_exactly(4))

    proxy = deployment.proxy(*static(deployment.backend(echoing)), descriptors=FEW)
    for _ in range(2 * SHARE):
        connection = proxy.connect()
        connection.send(UPGRADE)
        assert connection.read_head().startswith(b"HTTP/1.1 101")
        connection.send(b"ping")
        assert connection.read_exactly(4) == b"ping"
        connection.read_to_end()
        connection.close()


def test_websockets_count_towards_limit(deployment: Deployment) -> None:
    def lasting(connection: Connection) -> None:
        connection.read_head()
        connection.send(SWITCHED)
        connection.read_to_end()

    backend = deployment.backend(lasting)
    proxy = deployment.proxy(*static(backend), "-max-clients", "36", descriptors=FEW)
    sockets = []
    for _ in range(12):  # 48 of 80 are free, 36 for clients
        sockets.append(proxy.connect())
        sockets[-1].send(UPGRADE)
        assert sockets[-1].read_head().startswith(b"HTTP/1.1 101")
    response, body = proxy.request()
    assert (response.status, body[:22]) == (503, b"The proxy has 12 conne")
    for one in sockets:
        one.close()


def test_max_clients_above_descriptors_is_logged(deployment: Deployment) -> None:
    flags = [*static(deployment.backend(respond_with("one"))), "-max-clients", "1000"]
    proxy = deployment.proxy(*flags, descriptors=FEW)
    line = "too few file descriptors for -max-clients: raise LimitNOFILE .* max_clients=1000"
    proxy.process.wait_for_line(f"{line} descriptors=80 allowed=36", LIMIT)
    assert proxy.body() == "one"


def test_proxy_survives_lack_of_descriptors(deployment: Deployment, tmp_path: Path) -> None:
    """The operator lowers the limit of a running proxy, and raises it again."""
    certificate = write_certificate(tmp_path, "a.example", file="a")
    tls = ("-tls-listen", "127.0.0.1:0", "-cert", certificate)
    first, second = (
        deployment.backend(respond_with("first")),
        deployment.backend(respond_with("second")),
    )
    proxy = deployment.proxy(*static(first, second), *tls)
    (pid,) = worker_pids(proxy.process)
    connection = proxy.connect()
    connection.send(GET)
    known = connection.read_response()[1]
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (next_descriptor(pid), before[1]))
    proxy.process.wait_for_line(rf"all \d+ descriptors are in use: {DESCRIPTOR_FIX}", LIMIT)
    turned_away = proxy.connect()
    assert turned_away.read_to_end() == b""  # at once
    turned_away.close()
    waiting = threading.Thread(target=_handshake, args=(proxy, tmp_path))
    waiting.start()
    answers = set()
    while len(answers) < 2:
        connection.send(GET)
        response, body = connection.read_response()
        answers.add((response.status, body))
    none = b"The proxy has no file descriptor left for a connection to a backend.\n"
    assert answers == {(200, known), (503, none)}
    assert waiting.is_alive()
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    waiting.join(LIMIT)  # it has waited in the listen queue
    assert not waiting.is_alive()
    wait_until(lambda: proxy.bodies(2) == {"first", "second"})
    connection.close()


def _handshake(proxy: Proxy, folder: Path) -> None:
    context = ssl.create_default_context(cafile=folder / "a.pem")
    connect_tls(tls_port(proxy.process), context, "a.example").close()
