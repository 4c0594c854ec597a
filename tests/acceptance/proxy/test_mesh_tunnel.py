"""HTTP through mesh tunnels: only the member's program connects to its HTTP server."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import arke
from lab import Process
from support.backends import GET, OK, Backend, Script, respond_always
from support.connection import Connection
from support.ports import free_port
from support.processes import start_process
from support.programs import program
from support.proxy_harness import AddressService
from support.proxy_process import start_cluster_proxy, worker_pids
from support.relay_status import wait_for_members
from support.relays import Relay, Relays
from support.waiting import LIMIT

MIB = 1 << 20


class Far:
    """A proxy at one relay; members and their HTTP servers at another."""

    def __init__(self, near: Relay, far: Relay) -> None:
        self._near = near
        self._far = far
        self._ends: list[Callable[[], None]] = []
        self.members: list[Process] = []
        self.proxy: Process
        self._port = 0

    def backend(self, script: Script) -> Backend:
        made = Backend(script)
        self._ends.append(made.stop)
        self.member("-http", made.address)
        return made

    def member(self, *flags: str) -> None:
        words = [*program("arke"), "serve", "web", "-port", str(self._far.port), *flags]
        process = start_process("member", words)
        self._ends.append(lambda: end(process))
        self.members.append(process)

    def start(self, *flags: str, via: str = "tunnel") -> None:
        """Start the proxy when its relay knows all members."""
        asyncio.run(self._met())
        words = "-choose", "watch", "-via", via, *flags
        self.proxy, self._port = start_cluster_proxy(self._near, "web", *words)
        self._ends.append(lambda: end(self.proxy))

    @property
    def carriers(self) -> list[int]:
        """The processes that bodies pass through: the proxy's workers and the members."""
        return [*worker_pids(self.proxy), *(member.machine_pid for member in self.members)]

    async def _met(self) -> None:
        async with arke.connect(port=self._near.port) as mesh:
            await wait_for_members(mesh, "web", len(self.members))

    def connect(self) -> Connection:
        connection = Connection(socket.create_connection(("127.0.0.1", self._port), LIMIT))
        self._ends.append(connection.close)
        return connection

    def end(self) -> None:
        for each in reversed(self._ends):
            each()


def end(process: Process) -> None:
    if process.running:
        process.kill()
    process.wait(LIMIT)
    sys.stdout.write(f"--- {process.name}\n{process.tail()}\n")
    process.close()


@pytest.fixture
def far(relays: Relays) -> Iterator[Far]:
    made = Far(*relays.start_pair())
    try:
        yield made
    finally:
        made.end()


def test_tunnel_is_pooled_and_shared_by_requests(far: Far) -> None:
    backend = far.backend(respond_always(OK))
    far.start()
    for _ in range(2):
        client = far.connect()
        for _ in range(3):
            client.send(GET)
            response, body = client.read_response()
            assert (response.status, body) == (200, b"ok")
    assert backend.connections == 1


def test_upload_through_tunnel_has_backpressure(far: Far) -> None:
    read_on = threading.Event()

    def script(connection: Connection) -> None:
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.read_head()
        assert read_on.wait(LIMIT)
        body = connection.read_exactly(20 * MIB)
        digest = hashlib.sha256(body).hexdigest().encode()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n" + digest)

    far.backend(script)
    far.start()
    body = os.urandom(MIB) * 20
    before = peaks_anew(far.carriers)
    client = far.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: example\r\nContent-Length: %d\r\n\r\n" % len(body))
    sent = client.send_until_stalled(body, 1.0)
    assert sent < len(body)
    read_on.set()
    client.send(body[sent:])
    _, answer = client.read_response()
    assert answer == hashlib.sha256(body).hexdigest().encode()
    assert growth(before) < 2 * MIB


def test_download_through_tunnel_has_backpressure(far: Far) -> None:
    body = os.urandom(MIB) * 20
    stalled = threading.Event()

    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        sent = connection.send_until_stalled(body, 1.0)
        assert sent < len(body)
        stalled.set()
        connection.send(body[sent:])
        connection.read_head()

    far.backend(script)
    far.start()
    before = peaks_anew(far.carriers)
    client = far.connect()
    client.send(GET)
    assert client.read_head().startswith(b"HTTP/1.1 200 ")
    assert stalled.wait(LIMIT)
    digest = hashlib.sha256(client.read_exactly(20 * MIB))
    assert digest.digest() == hashlib.sha256(body).digest()
    assert growth(before) < 2 * MIB


def peaks_anew(pids: list[int]) -> dict[int, int]:
    """Reset the memory peak of these processes; return their current memory."""
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")
    return {pid: peak(pid) for pid in pids}


def growth(before: dict[int, int]) -> int:
    """Return the largest growth of a process up to its peak, in bytes."""
    return max(peak(pid) - size for pid, size in before.items())


def peak(pid: int) -> int:
    """Return the peak resident memory since the reset, in bytes."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    match = re.search(r"VmHWM:\s+(\d+) kB", text)
    assert match
    return int(match[1]) * 1024


@pytest.mark.parametrize("framing", [b"Content-Length: 1000\r\n", b"Connection: close\r\n"])
def test_member_that_dies_within_response_cuts_the_client(far: Far, framing: bytes) -> None:
    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\nhalf an ans")
        connection.read_head()

    far.backend(script)
    far.start()
    client = far.connect()
    client.send(b"GET / HTTP/1.0\r\n\r\n")
    client.read_until(b"half an ans")
    far.members[0].kill()
    with pytest.raises(ConnectionResetError):
        client.read_to_end()


def test_response_delimited_by_close_through_tunnel(far: Far) -> None:
    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nwhole")

    far.backend(script)
    far.start()
    client = far.connect()
    client.send(GET)
    assert client.read_response()[1] == b"whole"


def test_member_with_stopped_http_server_is_skipped(far: Far) -> None:
    far.member("-http", f"127.0.0.1:{free_port()}")
    backend = far.backend(respond_always(OK))
    far.start()
    for _ in range(4):
        client = far.connect()
        client.send(GET)
        assert client.read_response()[1] == b"ok"
        client.send(b"POST / HTTP/1.1\r\nHost: example\r\nContent-Length: 0\r\n\r\n")
        assert client.read_response()[1] == b"ok"
    assert backend.connections >= 1


def test_health_checks_through_tunnel_eject_and_recover(far: Far) -> None:
    healthy = threading.Event()
    hosts = []

    def script(connection: Connection) -> None:
        while head := connection.read_head():
            if head.startswith(b"GET /healthz "):
                hosts.append(head)
            sick = head.startswith(b"GET /healthz ") and not healthy.is_set()
            status = b"500 Oh No" if sick else b"200 OK"
            connection.send(b"HTTP/1.1 %b\r\nContent-Length: 4\r\n\r\nsick" % status)

    sick = far.backend(script)
    far.backend(respond_always(OK))
    far.start("-check", "/healthz")
    place = re.escape(f'backend="{sick.address} via ')
    out = rf'backend ejected from rotation {place}\S+ reason="health check failed: status 500'
    far.proxy.wait_for_line(out, LIMIT)
    client = far.connect()
    for _ in range(20):
        client.send(GET)
        assert client.read_response()[1] == b"ok"
    assert f"\r\nHost: {sick.address}\r\n".encode() in hosts[0]
    healthy.set()
    far.proxy.wait_for_line(f"backend returned to rotation {place}", LIMIT)


def test_health_check_without_http_server_ejects(far: Far) -> None:
    port = free_port()
    far.member("-http", f"127.0.0.1:{port}")
    far.backend(respond_always(OK))
    far.start("-check", "/healthz")
    far.proxy.wait_for_line(
        rf'ejected from rotation .*:{port} via \S+ reason="health check failed: cannot connect',
        LIMIT,
    )


@pytest.mark.parametrize("at", ["rest", "work"])
def test_member_exits_without_waiting_for_idle_tunnels(
    relays: Relays, caplog: pytest.LogCaptureFixture, at: str
) -> None:
    """The proxy's pool timeout is longer than this member's drain timeout."""
    relay = relays.start()
    asked, left = threading.Event(), threading.Event()

    def script(connection: Connection) -> None:
        while connection.read_head():
            asked.set()
            assert at == "rest" or left.wait(LIMIT)
            connection.send(OK)

    backend = Backend(script)
    member = AddressService("web", relay.port, http=backend.address, drain=3.0)
    member.join()
    proxy, port = start_cluster_proxy(relay, "web", "-choose", "watch", "-via", "tunnel")
    with ThreadPoolExecutor(1) as other:
        client = Connection(socket.create_connection(("127.0.0.1", port), LIMIT))
        client.send(GET)
        assert asked.wait(LIMIT)
        if at == "rest":
            assert client.read_response()[1] == b"ok"
        leaving = other.submit(member.leave)
        asyncio.run(nobody_serves(relay))
        left.set()
        if at == "work":
            assert client.read_response()[1] == b"ok"
        leaving.result(LIMIT)
    client.close()
    end(proxy)
    backend.stop()
    assert "did not finish" not in caplog.text


async def nobody_serves(relay: Relay) -> None:
    async with arke.connect(port=relay.port) as mesh:
        await wait_for_members(mesh, "web", 0)


def test_member_without_http_server_is_no_backend(far: Far) -> None:
    far.member("-echo")
    far.start()
    client = far.connect()
    client.send(GET)
    response, page = client.read_response()
    assert response.status == 503
    assert b"has no backend" in page


def test_websocket_through_tunnel(far: Far) -> None:
    ended = threading.Event()

    def script(connection: Connection) -> None:
        assert b"Upgrade: websocket" in connection.read_head()
        head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
        connection.send(head + b"\r\nearly")
        while data := connection.sock.recv(65536):
            connection.send(data.upper())
        ended.set()

    far.backend(script)
    far.start()
    client = far.connect()
    head = b"GET / HTTP/1.1\r\nHost: example\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"
    client.send(head)
    assert client.read_head().startswith(b"HTTP/1.1 101 ")
    assert client.read_exactly(5) == b"early"
    for size in (1, 1000, 300_000):
        client.send(b"x" * size)
        assert client.read_exactly(size) == b"X" * size
    client.sock.shutdown(socket.SHUT_WR)
    assert client.read_to_end() == b""
    assert ended.wait(LIMIT)
