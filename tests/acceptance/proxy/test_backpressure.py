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

from support.backend_scripts import UPGRADE_REQUEST, UPGRADE_RESPONSE
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
CONNECTIONS = 8  # that are stalled at the same time
# Each: the client's request; what the backend sends before and after the client's data.
UPLOAD = (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % SIZE, b"", OK)
WEBSOCKET = (UPGRADE_REQUEST, UPGRADE_RESPONSE, b"ok")

Connect = Callable[[], Connection]


@pytest.fixture(scope="module")
def module_harness(module_folder: Path) -> Iterator[ProxyHarness]:
    certificate = write_certificate(module_folder, "a.example", file="a")
    with proxy_harness(
        module_folder, "-tls-listen", "127.0.0.1:0", "-cert", certificate
    ) as harness:
        yield harness


@pytest.fixture(params=["plain", "tls"])
def connect(request: pytest.FixtureRequest, harness: ProxyHarness, module_folder: Path) -> Connect:
    if request.param == "plain":
        return harness.connect
    context = ssl.create_default_context(cafile=module_folder / "a.pem")
    return lambda: harness.connect_tls(context, "a.example")


@pytest.mark.parametrize(
    ("request_", "before_data", "after_data"), [UPLOAD, WEBSOCKET], ids=["upload", "websocket"]
)
def test_slow_backend_slows_client_and_is_not_timed_out(
    harness: ProxyHarness, connect: Connect, request_: bytes, before_data: bytes, after_data: bytes
) -> None:
    data = hashlib.shake_256(b"upload").digest(SIZE)
    stalled = threading.Event()
    digests = []

    def script(connection: Connection) -> None:
        connection.limit_buffers()
        connection.read_head()
        connection.send(before_data)
        assert stalled.wait(2 * LIMIT)
        digests.append(hashlib.sha256(connection.read_exactly(SIZE)).digest())
        connection.send(after_data)

    def stall(connection: Connection) -> int:
        connection.limit_buffers()
        connection.send(request_)
        if before_data:
            assert connection.read_head().startswith(b"HTTP/1.1 101 ")
        # Longer than TCP_USER_TIMEOUT (2 s): a slow backend must not be taken for a dead host.
        return connection.send_until_stalled(data, 3.0)

    def finish(connection: Connection, sent: int) -> bytes:
        connection.send(data[sent:])
        if not before_data:
            assert connection.read_head().startswith(b"HTTP/1.1 200 ")
        return connection.read_exactly(2)

    harness.start_backends(script)
    connections = [connect() for _ in range(CONNECTIONS)]
    before = harness.memory
    with ThreadPoolExecutor(CONNECTIONS) as clients:
        try:
            sent = list(clients.map(stall, connections))
            assert max(sent) < SIZE, "the proxy accepted all data: no backpressure"
            assert harness.memory - before < CONNECTIONS * MB
        finally:  # ends the backends' threads even if an assertion failed
            stalled.set()
        assert list(clients.map(finish, connections, sent)) == [b"ok"] * CONNECTIONS
    assert digests == [hashlib.sha256(data).digest()] * CONNECTIONS


def test_slow_client_slows_download(harness: ProxyHarness, connect: Connect) -> None:
    data = hashlib.shake_256(b"download").digest(SIZE)
    stalled = threading.Semaphore(0)

    def script(connection: Connection) -> None:
        connection.limit_buffers()
        connection.read_head()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
        sent = connection.send_until_stalled(data, 1.0)
        assert sent < SIZE, "the proxy read all data: no backpressure"
        stalled.release()
        connection.send(data[sent:])

    harness.start_backends(script)
    connections = [connect() for _ in range(CONNECTIONS)]
    before = harness.memory
    for connection in connections:
        connection.limit_buffers()
        connection.send(GET)
    assert all(stalled.acquire(timeout=2 * LIMIT) for _ in connections)
    assert harness.memory - before < CONNECTIONS * MB
    for connection in connections:
        assert connection.read_response()[1] == data


def test_slow_client_slows_download_after_retry(harness: ProxyHarness) -> None:
    """The client is already slow when the retry starts.

    The failed backend has sent 1xx responses that the client has not read.
    """
    data = hashlib.shake_256(b"retry").digest(SIZE)
    hints_stalled, response_stalled = threading.Event(), threading.Event()
    hint = b"HTTP/1.1 103 Early Hints\r\nX: %b\r\n\r\n" % (b"x" * 60_000)
    hints = hint * (SIZE // len(hint))

    def fill_with_hints_and_fail(connection: Connection) -> None:
        connection.read_head()
        connection.limit_buffers()
        assert connection.send_until_stalled(hints, 1.0) < len(hints)
        connection.reset()
        hints_stalled.set()

    def respond(connection: Connection) -> None:
        connection.read_head()
        assert connection.read_exactly(4) == b"body"
        response = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE + data
        sent = connection.send_until_stalled(response, 1.0)
        assert sent < SIZE, "the proxy read all data: no backpressure"
        response_stalled.set()
        connection.send(response[sent:])

    harness.start_backends(fill_with_hints_and_fail, respond)
    connection = harness.connect()
    connection.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo")
    assert hints_stalled.wait(2 * LIMIT)
    before = harness.memory
    connection.send(b"dy")  # writing it makes the proxy notice the reset of the backend
    assert response_stalled.wait(2 * LIMIT)
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
    assert sent < len(data), "the proxy accepted all data: no backpressure"
    assert harness.memory - before < MB
    connection.sock.shutdown(socket.SHUT_WR)
    for _ in range(sent // len(request)):
        assert connection.read_head().startswith(b"HTTP/1.1 200 OK\r\n")
        connection.read_exactly(10_000)
    assert connection.read_to_end() == b""
