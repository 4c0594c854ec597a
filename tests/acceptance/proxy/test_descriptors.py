"""Proxies with few file descriptors, and a proxy that runs out of them."""

from __future__ import annotations

import resource
import ssl
import threading
from pathlib import Path

import pytest

from support.backend_scripts import UPGRADE_REQUEST, UPGRADE_RESPONSE, static_flags
from support.backends import GET, respond_with
from support.certificates import write_certificate
from support.connection import Connection, connect_tls
from support.deployment import Deployment, Proxy
from support.proxy_process import tls_port, worker_pids
from support.raw_http2 import RawHttp2
from support.waiting import LIMIT, wait_until

pytestmark = pytest.mark.alone

FEW = 80  # descriptors of a proxy
SHARE = 24  # the limit of client connections, and of connections to backends
DESCRIPTOR_FIX = r"raise LimitNOFILE \(ulimit -n\), or lower -max-clients"


def next_descriptor(pid: int) -> int:
    """Return the lowest free descriptor number of a process, which it uses next."""
    used = {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    return min(set(range(len(used) + 1)) - used)


def test_clients_cannot_exhaust_descriptors(deployment: Deployment) -> None:
    """A client over the limit gets 503. The accepted clients are still served."""

    def respond_and_close(connection: Connection) -> None:
        connection.read_head()
        connection.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")

    proxy = deployment.proxy(*static_flags(deployment.backend(respond_and_close)), descriptors=FEW)
    connection = proxy.connect()
    connection.send(GET)
    assert connection.read_response()[0].status == 200
    excess = [proxy.connect() for _ in range(100)]
    proxy.process.wait_for_line(
        f"The proxy has {SHARE} client connections, which is its limit", LIMIT
    )
    assert excess[-1].read_response()[0].status == 503
    for _ in range(5):
        connection.send(GET)
        assert connection.read_response()[0].status == 200
    for each in (connection, *excess):
        each.close()


def test_idle_backend_connections_are_evicted_for_new_ones(deployment: Deployment) -> None:
    backends = [deployment.backend(respond_with(str(number))) for number in range(3 * SHARE)]
    proxy = deployment.proxy(*static_flags(*backends), descriptors=FEW)
    connection = proxy.connect()
    bodies = set()
    for _ in range(200):
        connection.send(GET)
        response, body = connection.read_response()
        assert response.status == 200, body
        bodies.add(body)
    assert len(bodies) > SHARE
    connection.close()


def test_http2_streams_cannot_exhaust_descriptors(deployment: Deployment) -> None:
    requests_received, may_respond = threading.Semaphore(0), threading.Event()

    def respond_when_allowed(connection: Connection) -> None:
        while connection.read_head():
            requests_received.release()
            assert may_respond.wait(LIMIT)
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    proxy = deployment.proxy(
        *static_flags(deployment.backend(respond_when_allowed)), descriptors=FEW
    )
    client = RawHttp2(proxy.connect())
    streams = range(1, 200, 2)
    for stream in streams:
        client.get(stream)
    for _ in range(SHARE):
        assert requests_received.acquire(timeout=LIMIT)
    message = f"The proxy has {SHARE} connections to backends, which is its limit"
    proxy.process.wait_for_line(f"{message}: {DESCRIPTOR_FIX}", LIMIT)
    response, body = proxy.request()  # clients have their own share, so this one is accepted
    assert (response.status, body) == (503, f"{message}.\n".encode())
    assert response.getheader("retry-after") == "1"
    may_respond.set()
    responses = client.read_responses(*streams)
    assert sorted(fields[b":status"] for fields, _ in responses.values()) == sorted(
        [b"200"] * SHARE + [b"503"] * (len(streams) - SHARE)
    )
    assert proxy.body() == "ok"
    client.connection.close()


def test_closed_websockets_free_their_descriptors(deployment: Deployment) -> None:
    def echo_4_bytes(connection: Connection) -> None:
        connection.read_head()
        connection.send(UPGRADE_RESPONSE)
        connection.send(connection.read_exactly(4))

    proxy = deployment.proxy(*static_flags(deployment.backend(echo_4_bytes)), descriptors=FEW)
    for _ in range(2 * SHARE):
        connection = proxy.connect()
        connection.send(UPGRADE_REQUEST)
        assert connection.read_head().startswith(b"HTTP/1.1 101")
        connection.send(b"ping")
        assert connection.read_exactly(4) == b"ping"
        connection.read_to_end()
        connection.close()


def test_websockets_count_towards_limit_of_backend_connections(deployment: Deployment) -> None:
    def keep_websocket_open(connection: Connection) -> None:
        connection.read_head()
        connection.send(UPGRADE_RESPONSE)
        connection.read_to_end()

    backend = deployment.backend(keep_websocket_open)
    proxy = deployment.proxy(*static_flags(backend), "-max-clients", "36", descriptors=FEW)
    websockets = []
    for _ in range(12):  # 48 of the 80 descriptors are free: 36 for clients, 12 for backends
        websockets.append(proxy.connect())
        websockets[-1].send(UPGRADE_REQUEST)
        assert websockets[-1].read_head().startswith(b"HTTP/1.1 101")
    response, body = proxy.request()
    assert (response.status, body[:22]) == (503, b"The proxy has 12 conne")
    for websocket in websockets:
        websocket.close()


def test_max_clients_above_descriptors_is_logged(deployment: Deployment) -> None:
    flags = [*static_flags(deployment.backend(respond_with("one"))), "-max-clients", "1000"]
    proxy = deployment.proxy(*flags, descriptors=FEW)
    line = "too few file descriptors for -max-clients: raise LimitNOFILE .* max_clients=1000"
    proxy.process.wait_for_line(f"{line} descriptors=80 allowed=36", LIMIT)
    assert proxy.body() == "one"


def test_proxy_recovers_from_lack_of_descriptors(deployment: Deployment, tmp_path: Path) -> None:
    """The operator lowers the limit of a running proxy, and raises it again."""
    certificate = write_certificate(tmp_path, "a.example", file="a")
    tls = ("-tls-listen", "127.0.0.1:0", "-cert", certificate)
    first, second = (
        deployment.backend(respond_with("first")),
        deployment.backend(respond_with("second")),
    )
    proxy = deployment.proxy(*static_flags(first, second), *tls)
    (pid,) = worker_pids(proxy.process)
    connection = proxy.connect()
    connection.send(GET)
    first_body = connection.read_response()[1]
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (next_descriptor(pid), before[1]))
    proxy.process.wait_for_line(rf"all \d+ descriptors are in use: {DESCRIPTOR_FIX}", LIMIT)
    rejected = proxy.connect()
    assert rejected.read_to_end() == b""  # closed at once
    rejected.close()
    handshake = threading.Thread(target=_complete_tls_handshake, args=(proxy, tmp_path))
    handshake.start()
    responses = set()
    while len(responses) < 2:
        connection.send(GET)
        response, body = connection.read_response()
        responses.add((response.status, body))
    no_descriptor = b"The proxy has no file descriptor left for a connection to a backend.\n"
    assert responses == {(200, first_body), (503, no_descriptor)}
    assert handshake.is_alive()
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    handshake.join(LIMIT)  # its connection has waited in the accept queue
    assert not handshake.is_alive()
    wait_until(lambda: proxy.bodies(2) == {"first", "second"})
    connection.close()


def _complete_tls_handshake(proxy: Proxy, folder: Path) -> None:
    context = ssl.create_default_context(cafile=folder / "a.pem")
    connect_tls(tls_port(proxy.process), context, "a.example").close()
