"""Backpressure: a slow receiver slows the sender, and the proxy buffers little."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.backends import OK, respond_always
from support.certificates import write_certificate
from support.connection import Connection
from support.proxy_harness import ProxyHarness, proxy_harness
from support.waiting import LIMIT

pytestmark = pytest.mark.alone

GET = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
MB = 1_000_000
MIB = 1 << 20


def largest_buffer(direction: str) -> int:
    """Return the size to which the kernel may grow a TCP connection's buffer."""
    limits = Path(f"/proc/sys/net/ipv4/tcp_{direction}mem").read_text(encoding="ascii")
    return int(limits.split()[-1])


# The kernel grows the proxy's socket buffers by itself. SIZE is more than fits into them.
SIZE = largest_buffer("r") + largest_buffer("w") + 4 * MIB
AT_ONCE = 8  # stalled connections
UPGRADE = b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
# The client's request, and the start and end of the backend's response.
UPLOAD = (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % SIZE, b"", OK)
WEB_SOCKET = (
    b"GET / HTTP/1.1\r\nHost: a\r\n" + UPGRADE,
    b"HTTP/1.1 101 Switching Protocols\r\n" + UPGRADE,
    b"ok",
)

Connect = Callable[[], Connection]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def module_harness(folder: Path) -> Iterator[ProxyHarness]:
    certificate = write_certificate(folder, "a.example", file="a")
    with proxy_harness(folder, "-tls-listen", "127.0.0.1:0", "-cert", certificate) as harness:
        yield harness


@pytest.fixture(params=["plain", "tls"])
def connect(request: pytest.FixtureRequest, harness: ProxyHarness, folder: Path) -> Connect:
    if request.param == "plain":
        return harness.connect
    context = ssl.create_default_context(cafile=folder / "a.pem")
    return lambda: harness.connect_tls(context, "a.example")


@pytest.mark.parametrize(
    ("asks", "begins", "ends"), [UPLOAD, WEB_SOCKET], ids=["upload", "spliced"]
)
def test_slow_backend_slows_client_and_is_not_timed_out(
    harness: ProxyHarness, connect: Connect, asks: bytes, begins: bytes, ends: bytes
) -> None:
    data = hashlib.shake_256(b"upload").digest(SIZE)
    stalled = threading.Event()
    digests = []

    def script(connection: Connection) -> None:
        connection.limit_buffers()
        connection.read_head()
        connection.send(begins)
        assert stalled.wait(2 * LIMIT)
        digests.append(hashlib.sha256(connection.read_exactly(SIZE)).digest())
        connection.send(ends)

    def stall(connection: Connection) -> int:
        connection.limit_buffers()
        connection.send(asks)
        if begins:
            assert connection.read_head().startswith(b"HTTP/1.1 101 ")
        # Three seconds: a host that did not acknowledge for so long would be taken for dead.
        return connection.send_until_stalled(data, 3.0)

    def finish(connection: Connection, sent: int) -> bytes:
        connection.send(data[sent:])
        if not begins:
            assert connection.read_head().startswith(b"HTTP/1.1 200 ")
        return connection.read_exactly(2)

    harness.start_backends(script)
    connections = [connect() for _ in range(AT_ONCE)]
    before = harness.memory
    with ThreadPoolExecutor(AT_ONCE) as clients:
        try:
            sent = list(clients.map(stall, connections))
            assert max(sent) < SIZE, "nothing slows the client down"
            assert harness.memory - before < AT_ONCE * MB
        finally:  # or the backends' threads would outlast a failure
            stalled.set()
        assert list(clients.map(finish, connections, sent)) == [b"ok"] * AT_ONCE
    assert digests == [hashlib.sha256(data).digest()] * AT_ONCE


def test_slow_client_slows_download(harness: ProxyHarness, connect: Connect) -> None:
    data = hashlib.shake_256(b"download").digest(SIZE)
    stalled = threading.Semaphore(0)

    def script(connection: Connection) -> None:
        connection.limit_buffers()
        connection.read_head()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
        sent = connection.send_until_stalled(data, 1.0)
        assert sent < SIZE, "nothing slows the backend down"
        stalled.release()
        connection.send(data[sent:])

    harness.start_backends(script)
    connections = [connect() for _ in range(AT_ONCE)]
    before = harness.memory
    for connection in connections:
        connection.limit_buffers()
        connection.send(GET)
    assert all(stalled.acquire(timeout=2 * LIMIT) for _ in connections)
    assert harness.memory - before < AT_ONCE * MB
    for connection in connections:
        assert connection.read_response()[1] == data


def test_slow_client_slows_download_after_retry(harness: ProxyHarness) -> None:
    """The client is slow already, because of 1xx responses of a backend that failed."""
    data = hashlib.shake_256(b"again").digest(SIZE)
    full, slowed = threading.Event(), threading.Event()
    hint = b"HTTP/1.1 103 Early Hints\r\nX: %b\r\n\r\n" % (b"x" * 60_000)
    hints = hint * (SIZE // len(hint))

    def breaks(connection: Connection) -> None:
        connection.read_head()
        connection.limit_buffers()
        assert connection.send_until_stalled(hints, 1.0) < len(hints)
        connection.reset()
        full.set()

    def serves(connection: Connection) -> None:
        connection.read_head()
        assert connection.read_exactly(4) == b"body"
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE + data
        sent = connection.send_until_stalled(answer, 1.0)
        assert sent < SIZE, "nothing slows the backend down"
        slowed.set()
        connection.send(answer[sent:])

    harness.start_backends(breaks, serves)
    connection = harness.connect()
    connection.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo")
    assert full.wait(2 * LIMIT)
    before = harness.memory
    connection.send(b"dy")  # so the proxy notices that the backend is gone
    assert slowed.wait(2 * LIMIT)
    assert harness.memory - before < MB
    while connection.read_head().startswith(b"HTTP/1.1 103 "):
        pass
    assert connection.read_exactly(SIZE) == data


def test_client_that_pipelines_without_reading_is_slowed(harness: ProxyHarness) -> None:
    harness.start_backends(
        respond_always(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n" + b"x" * 10_000)
    )
    request = b"GET / HTTP/1.1\r\nHost: example\r\nX: " + b"x" * 8000 + b"\r\n\r\n"
    connection = harness.connect()
    before = harness.memory
    data = request * 10_000
    sent = connection.send_until_stalled(data, 1.0)
    assert sent < len(data), "nothing slows the client down"
    assert harness.memory - before < MB
    connection.sock.shutdown(socket.SHUT_WR)
    for _ in range(sent // len(request)):
        assert connection.read_head().startswith(b"HTTP/1.1 200 OK\r\n")
        connection.read_exactly(10_000)
    assert connection.read_to_end() == b""
