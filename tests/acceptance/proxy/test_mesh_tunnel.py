"""HTTP through mesh tunnels: the proxy reaches a member's HTTP server through the member."""

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
from support.backend_scripts import UPGRADE_REQUEST, UPGRADE_RESPONSE
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


class RemoteMembers:
    """A proxy at one relay; members with HTTP servers at another relay, linked to the first."""

    def __init__(self, proxy_relay: Relay, member_relay: Relay) -> None:
        self._proxy_relay = proxy_relay
        self._member_relay = member_relay
        self._cleanups: list[Callable[[], None]] = []
        self.members: list[Process] = []
        self.proxy: Process
        self._port = 0

    def backend(self, script: Script) -> Backend:
        backend = Backend(script)
        self._cleanups.append(backend.stop)
        self.member("-http", backend.address)
        return backend

    def member(self, *flags: str) -> None:
        command = [*program("arke"), "serve", "web", "-port", str(self._member_relay.port), *flags]
        process = start_process("member", command)
        self._cleanups.append(lambda: stop(process))
        self.members.append(process)

    def start(self, *flags: str, via: str = "tunnel") -> None:
        """Wait until the proxy's relay knows all members, and start the proxy."""
        asyncio.run(self._members_known())
        flags = "-choose", "watch", "-via", via, *flags
        self.proxy, self._port = start_cluster_proxy(self._proxy_relay, "web", *flags)
        self._cleanups.append(lambda: stop(self.proxy))

    @property
    def forwarding_pids(self) -> list[int]:
        """The processes that forward bodies: the proxy's workers and the members."""
        return [*worker_pids(self.proxy), *(member.machine_pid for member in self.members)]

    async def _members_known(self) -> None:
        async with arke.connect(port=self._proxy_relay.port) as mesh:
            await wait_for_members(mesh, "web", len(self.members))

    def connect(self) -> Connection:
        connection = Connection(socket.create_connection(("127.0.0.1", self._port), LIMIT))
        self._cleanups.append(connection.close)
        return connection

    def stop(self) -> None:
        for clean_up in reversed(self._cleanups):
            clean_up()


def stop(process: Process) -> None:
    if process.running:
        process.kill()
    process.wait(LIMIT)
    sys.stdout.write(f"--- {process.name}\n{process.tail()}\n")
    process.close()


@pytest.fixture
def remote(relays: Relays) -> Iterator[RemoteMembers]:
    members = RemoteMembers(*relays.start_pair())
    try:
        yield members
    finally:
        members.stop()


def test_tunnel_is_pooled_and_shared_by_requests(remote: RemoteMembers) -> None:
    backend = remote.backend(respond_always(OK))
    remote.start()
    for _ in range(2):
        client = remote.connect()
        for _ in range(3):
            client.send(GET)
            response, body = client.read_response()
            assert (response.status, body) == (200, b"ok")
    assert backend.connections == 1


def test_upload_through_tunnel_has_backpressure(remote: RemoteMembers) -> None:
    may_read = threading.Event()

    def script(connection: Connection) -> None:
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.read_head()
        assert may_read.wait(LIMIT)
        body = connection.read_exactly(20 * MIB)
        digest = hashlib.sha256(body).hexdigest().encode()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n" + digest)

    remote.backend(script)
    remote.start()
    body = os.urandom(MIB) * 20
    before = reset_memory_peaks(remote.forwarding_pids)
    client = remote.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: example\r\nContent-Length: %d\r\n\r\n" % len(body))
    sent = client.send_until_stalled(body, 1.0)
    assert sent < len(body)
    may_read.set()
    client.send(body[sent:])
    _, digest = client.read_response()
    assert digest == hashlib.sha256(body).hexdigest().encode()
    assert largest_growth(before) < 2 * MIB


def test_download_through_tunnel_has_backpressure(remote: RemoteMembers) -> None:
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

    remote.backend(script)
    remote.start()
    before = reset_memory_peaks(remote.forwarding_pids)
    client = remote.connect()
    client.send(GET)
    assert client.read_head().startswith(b"HTTP/1.1 200 ")
    assert stalled.wait(LIMIT)
    digest = hashlib.sha256(client.read_exactly(20 * MIB))
    assert digest.digest() == hashlib.sha256(body).digest()
    assert largest_growth(before) < 2 * MIB


def reset_memory_peaks(pids: list[int]) -> dict[int, int]:
    """Reset the memory peak of these processes; return their current memory."""
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")
    return {pid: peak_memory(pid) for pid in pids}


def largest_growth(before: dict[int, int]) -> int:
    """Return the largest growth of a process up to its peak, in bytes."""
    return max(peak_memory(pid) - size for pid, size in before.items())


def peak_memory(pid: int) -> int:
    """Return the peak resident memory since the reset, in bytes."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    match = re.search(r"VmHWM:\s+(\d+) kB", text)
    assert match
    return int(match[1]) * 1024


@pytest.mark.parametrize("framing", [b"Content-Length: 1000\r\n", b"Connection: close\r\n"])
def test_member_that_dies_within_response_resets_the_client(
    remote: RemoteMembers, framing: bytes
) -> None:
    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\nhalf an ans")
        connection.read_head()

    remote.backend(script)
    remote.start()
    client = remote.connect()
    client.send(b"GET / HTTP/1.0\r\n\r\n")
    client.read_until(b"half an ans")
    remote.members[0].kill()
    with pytest.raises(ConnectionResetError):
        client.read_to_end()


def test_response_delimited_by_close_through_tunnel(remote: RemoteMembers) -> None:
    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nwhole")

    remote.backend(script)
    remote.start()
    client = remote.connect()
    client.send(GET)
    assert client.read_response()[1] == b"whole"


def test_member_with_stopped_http_server_is_skipped(remote: RemoteMembers) -> None:
    remote.member("-http", f"127.0.0.1:{free_port()}")
    backend = remote.backend(respond_always(OK))
    remote.start()
    for _ in range(4):
        client = remote.connect()
        client.send(GET)
        assert client.read_response()[1] == b"ok"
        client.send(b"POST / HTTP/1.1\r\nHost: example\r\nContent-Length: 0\r\n\r\n")
        assert client.read_response()[1] == b"ok"
    assert backend.connections >= 1


def test_health_checks_through_tunnel_eject_and_recover(remote: RemoteMembers) -> None:
    healthy = threading.Event()
    hosts = []

    def script(connection: Connection) -> None:
        while head := connection.read_head():
            if head.startswith(b"GET /healthz "):
                hosts.append(head)
            unhealthy = head.startswith(b"GET /healthz ") and not healthy.is_set()
            status = b"500 Oh No" if unhealthy else b"200 OK"
            connection.send(b"HTTP/1.1 %b\r\nContent-Length: 4\r\n\r\nsick" % status)

    unhealthy_backend = remote.backend(script)
    remote.backend(respond_always(OK))
    remote.start("-check", "/healthz")
    backend = re.escape(f'backend="{unhealthy_backend.address} via ')
    line = rf'backend ejected from rotation {backend}\S+ reason="health check failed: status 500'
    remote.proxy.wait_for_line(line, LIMIT)
    client = remote.connect()
    for _ in range(20):
        client.send(GET)
        assert client.read_response()[1] == b"ok"
    assert f"\r\nHost: {unhealthy_backend.address}\r\n".encode() in hosts[0]
    healthy.set()
    remote.proxy.wait_for_line(f"backend returned to rotation {backend}", LIMIT)


def test_health_check_without_http_server_ejects(remote: RemoteMembers) -> None:
    port = free_port()
    remote.member("-http", f"127.0.0.1:{port}")
    remote.backend(respond_always(OK))
    remote.start("-check", "/healthz")
    remote.proxy.wait_for_line(
        rf'ejected from rotation .*:{port} via \S+ reason="health check failed: cannot connect',
        LIMIT,
    )


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_member_exits_without_waiting_for_idle_tunnels(
    relays: Relays, caplog: pytest.LogCaptureFixture, state: str
) -> None:
    """The proxy keeps idle tunnels for longer than this member's drain timeout (3 s)."""
    relay = relays.start()
    request_received, member_left = threading.Event(), threading.Event()

    def script(connection: Connection) -> None:
        while connection.read_head():
            request_received.set()
            assert state == "idle" or member_left.wait(LIMIT)
            connection.send(OK)

    backend = Backend(script)
    member = AddressService("web", relay.port, http=backend.address, drain=3.0)
    member.join()
    proxy, port = start_cluster_proxy(relay, "web", "-choose", "watch", "-via", "tunnel")
    with ThreadPoolExecutor(1) as executor:
        client = Connection(socket.create_connection(("127.0.0.1", port), LIMIT))
        client.send(GET)
        assert request_received.wait(LIMIT)
        if state == "idle":
            assert client.read_response()[1] == b"ok"
        leaving = executor.submit(member.leave)
        asyncio.run(wait_until_cluster_is_empty(relay))
        member_left.set()
        if state == "busy":
            assert client.read_response()[1] == b"ok"
        leaving.result(LIMIT)
    client.close()
    stop(proxy)
    backend.stop()
    assert "did not finish" not in caplog.text


async def wait_until_cluster_is_empty(relay: Relay) -> None:
    async with arke.connect(port=relay.port) as mesh:
        await wait_for_members(mesh, "web", 0)


def test_member_that_publishes_no_http_address_is_no_backend(remote: RemoteMembers) -> None:
    remote.member("-echo")
    remote.start()
    client = remote.connect()
    client.send(GET)
    response, page = client.read_response()
    assert response.status == 503
    assert b"has no backend" in page


def test_websocket_through_tunnel(remote: RemoteMembers) -> None:
    connection_closed = threading.Event()

    def script(connection: Connection) -> None:
        assert b"Upgrade: websocket" in connection.read_head()
        connection.send(UPGRADE_RESPONSE + b"early")
        while data := connection.sock.recv(65536):
            connection.send(data.upper())
        connection_closed.set()

    remote.backend(script)
    remote.start()
    client = remote.connect()
    client.send(UPGRADE_REQUEST)
    assert client.read_head().startswith(b"HTTP/1.1 101 ")
    assert client.read_exactly(5) == b"early"
    for size in (1, 1000, 300_000):
        client.send(b"x" * size)
        assert client.read_exactly(size) == b"X" * size
    client.sock.shutdown(socket.SHUT_WR)
    assert client.read_to_end() == b""
    assert connection_closed.wait(LIMIT)
