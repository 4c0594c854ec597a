"""A proxy with few descriptors, and one whose descriptors run out all the same."""

from __future__ import annotations

import resource
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.certificates import write_certificate
from support.http2_raw import RawHttp2
from support.http_rig import Backend, Connection, connect_tls, tls_port, workers
from support.publishers import GET, Proxy, Site, says, site
from support.relays import LIMIT, eventually

pytestmark = pytest.mark.alone

FEW = 80
SHARE = 24  # of clients, and of connections to backends
UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
MEND = r"raise LimitNOFILE \(ulimit -n\), or lower -max-clients"


@pytest.fixture
def web() -> Iterator[Site]:
    with site() as made:
        yield made


def static(*backends: Backend) -> list[str]:
    flags = ["-choose", "static"]
    for backend in backends:
        flags += ["-backend", backend.address]
    return flags


def next_descriptor(pid: int) -> int:
    """The number that a process's next descriptor would have."""
    used = {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    return min(set(range(len(used) + 1)) - used)


def test_clients_cannot_use_up_the_descriptors(web: Site) -> None:
    """Those that the proxy serves can be answered, however many more there are."""

    def script(connection: Connection) -> None:
        connection.head()
        connection.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")

    proxy = web.proxy(*static(web.backend(script)), descriptors=FEW)
    connection = proxy.connect()
    connection.send(GET)
    assert connection.response()[0].status == 200
    others = [proxy.connect() for _ in range(100)]
    proxy.process.wait_for_line(f"The proxy serves {SHARE} connections, and no more", LIMIT)
    assert others[-1].response()[0].status == 503
    for _ in range(5):
        connection.send(GET)
        assert connection.response()[0].status == 200
    for one in (connection, *others):
        one.close()


def test_idle_connections_to_backends_make_room(web: Site) -> None:
    backends = [web.backend(says(str(number))) for number in range(3 * SHARE)]
    proxy = web.proxy(*static(*backends), descriptors=FEW)
    connection = proxy.connect()
    answered = set()
    for _ in range(200):
        connection.send(GET)
        response, body = connection.response()
        assert response.status == 200, body
        answered.add(body)
    assert len(answered) > SHARE
    connection.close()


def test_requests_of_http_2_do_not_use_up_the_descriptors(web: Site) -> None:
    asked, go = threading.Semaphore(0), threading.Event()

    def held(connection: Connection) -> None:
        while connection.head():
            asked.release()
            assert go.wait(LIMIT)
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    proxy = web.proxy(*static(web.backend(held)), descriptors=FEW)
    client = RawHttp2(proxy.connect())
    streams = range(1, 200, 2)
    for stream in streams:
        client.get(stream)
    for _ in range(SHARE):
        assert asked.acquire(timeout=LIMIT)
    sentence = f"The proxy has {SHARE} connections to backends, and no more"
    proxy.process.wait_for_line(f"{sentence}: {MEND}", LIMIT)
    response, body = proxy.exchange()  # there are descriptors for clients
    assert (response.status, body) == (503, f"{sentence}.\n".encode())
    assert response.getheader("retry-after") == "1"
    go.set()
    answers = client.answers(*streams)
    assert sorted(fields[b":status"] for fields, _ in answers.values()) == sorted(
        [b"200"] * SHARE + [b"503"] * (len(streams) - SHARE)
    )
    assert proxy.body() == "ok"
    client.connection.close()


def test_websockets_that_have_ended_count_no_longer(web: Site) -> None:
    def echoing(connection: Connection) -> None:
        connection.head()
        connection.send(SWITCHED)
        connection.send(connection.exactly(4))

    proxy = web.proxy(*static(web.backend(echoing)), descriptors=FEW)
    for _ in range(2 * SHARE):
        connection = proxy.connect()
        connection.send(UPGRADE)
        assert connection.head().startswith(b"HTTP/1.1 101")
        connection.send(b"ping")
        assert connection.exactly(4) == b"ping"
        connection.rest()
        connection.close()


def test_websockets_count(web: Site) -> None:
    def lasting(connection: Connection) -> None:
        connection.head()
        connection.send(SWITCHED)
        connection.rest()

    backend = web.backend(lasting)
    proxy = web.proxy(*static(backend), "-max-clients", "36", descriptors=FEW)
    sockets = []
    for _ in range(12):  # 48 of 80 are free, 36 for clients
        sockets.append(proxy.connect())
        sockets[-1].send(UPGRADE)
        assert sockets[-1].head().startswith(b"HTTP/1.1 101")
    response, body = proxy.exchange()
    assert (response.status, body[:22]) == (503, b"The proxy has 12 conne")
    for one in sockets:
        one.close()


def test_more_clients_than_descriptors_is_said(web: Site) -> None:
    flags = [*static(web.backend(says("one"))), "-max-clients", "1000"]
    proxy = web.proxy(*flags, descriptors=FEW)
    sentence = (
        r"-max-clients 1000: 80 descriptors are enough for 36; raise LimitNOFILE \(ulimit -n\)"
    )
    proxy.process.wait_for_line(sentence, LIMIT)
    assert proxy.body() == "one"


def test_a_lack_of_descriptors_ends_nothing_but_itself(web: Site, tmp_path: Path) -> None:
    """Somebody lowers the limit of a proxy that runs, and raises it again."""
    certificate = write_certificate(tmp_path, "a.example", file="a")
    tls = ("-tls-listen", "127.0.0.1:0", "-cert", certificate)
    first, second = web.backend(says("first")), web.backend(says("second"))
    proxy = web.proxy(*static(first, second), *tls)
    (pid,) = workers(proxy.process)
    connection = proxy.connect()
    connection.send(GET)
    known = connection.response()[1]
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (next_descriptor(pid), before[1]))
    proxy.process.wait_for_line(rf"all \d+ descriptors are in use: {MEND}", LIMIT)
    turned_away = proxy.connect()
    assert turned_away.rest() == b""  # at once
    turned_away.close()
    waiting = threading.Thread(target=_handshake, args=(proxy, tmp_path))
    waiting.start()
    answers = set()
    while len(answers) < 2:
        connection.send(GET)
        response, body = connection.response()
        answers.add((response.status, body))
    none = b"The proxy has no descriptor left for a connection to a backend.\n"
    assert answers == {(200, known), (503, none)}
    assert waiting.is_alive()
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    waiting.join(LIMIT)  # it has waited in the kernel's queue
    assert not waiting.is_alive()
    eventually(lambda: proxy.bodies(2) == {"first", "second"})
    connection.close()


def _handshake(proxy: Proxy, folder: Path) -> None:
    context = ssl.create_default_context(cafile=folder / "a.pem")
    connect_tls(tls_port(proxy.process), context, "a.example").close()
