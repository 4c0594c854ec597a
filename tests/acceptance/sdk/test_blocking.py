"""The blocking API: the calls of `arke.Mesh` from any thread."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import arke
from arke.blocking import Mesh, connect
from lab import Process
from support.backends import Backend
from support.connection import Connection
from support.processes import start_process
from support.proxy_harness import AddressService
from support.relays import Relay, Relays
from support.waiting import LIMIT

SERVICE = """
import sys
import arke

service = arke.Service("work", port=int(sys.argv[1]), metadata={"of": "a test"})

@service.on_request
def answer(request):
    if request.body == b"fail":
        raise ValueError("on request")
    return request.body[::-1]

@service.on_request_many
async def count(request):
    for number in range(int(request.body)):
        yield b"%d" % number

@service.on_tunnel
async def converse(tunnel):
    async for message in tunnel:
        await tunnel.send(message.upper())

service.run()
"""


@pytest.fixture
def relay(relays: Relays, tmp_path: Path) -> Iterator[Relay]:
    relay = relays.start()
    script = tmp_path / "service.py"
    script.write_text(SERVICE)
    service: Process = start_process("service", [sys.executable, script, str(relay.port)])
    try:
        relay.process.wait_for_line("program registered .*cluster=work", LIMIT)
        yield relay
    finally:
        service.terminate()
        service.wait(LIMIT)
        service.close()


def test_blocking_mesh_has_the_calls_of_mesh(relay: Relay) -> None:
    with connect(port=relay.port) as mesh:
        assert mesh.attached
        assert mesh.node.network
        assert mesh.request("work", b"abc", timeout=LIMIT) == b"cba"
        with pytest.raises(arke.RemoteError, match="ValueError: on request"):
            mesh.request("work", b"fail", timeout=LIMIT)
        (member,) = mesh.members("work")
        assert member.metadata == {"of": "a test"}
        assert mesh.request("work", b"ab", member=member.id, timeout=LIMIT) == b"ba"
        assert [answer.body for answer in mesh.request_all("work", b"xy")] == [b"yx"]
        assert list(mesh.request_many("work", b"5")) == [b"0", b"1", b"2", b"3", b"4"]
        assert next(mesh.watch("work")).member == member
        with mesh.subscribe("news") as events:
            for number in range(3):
                mesh.publish("news", b"%d" % number)
            assert [next(events).body for _ in range(3)] == [b"0", b"1", b"2"]
        mesh.broadcast("work", b"no handler")
        with mesh.tunnel("work") as tunnel:
            for word in (b"one", b"two"):
                tunnel.send(word)
            tunnel.close_send()
            assert tunnel.recv() == b"ONE"
            assert list(tunnel) == [b"TWO"]
        assert mesh.status()["node"]["network"] == mesh.node.network
    with pytest.raises(arke.MeshClosed):
        mesh.request("work", b"")


def test_blocking_http_tunnel_reaches_the_server(relays: Relays) -> None:
    def script(connection: Connection) -> None:
        connection.send(connection.read_until(b"\n").upper())

    relay = relays.start()
    server = Backend(script)
    member = AddressService("web", relay.port, http=server.address)
    member.join()
    with connect(port=relay.port) as mesh:
        (listed,) = mesh.members("web")
        with mesh.http_tunnel(listed.id, timeout=LIMIT) as tunnel:
            tunnel.send(b"message\n")
            assert list(tunnel) == [b"MESSAGE\n"]
    member.leave()
    server.stop()


def test_threads_share_one_blocking_mesh(relay: Relay) -> None:
    with connect(port=relay.port) as mesh, ThreadPoolExecutor(16) as threads:
        bodies = [f"{number:04}".encode() for number in range(500)]
        replies = threads.map(lambda body: mesh.request("work", body, timeout=LIMIT), bodies)
        assert list(replies) == [body[::-1] for body in bodies]


def test_abandoned_iteration_is_closed(relay: Relay) -> None:
    with connect(port=relay.port) as mesh:
        for part in mesh.request_many("work", b"1000000"):
            if part == b"3":
                break
        with pytest.raises(ZeroDivisionError), mesh.tunnel("work") as tunnel:  # noqa: PT012
            tunnel.send(b"x")
            raise ZeroDivisionError
        with pytest.raises(arke.TunnelClosed):  # noqa: PT012
            for _ in range(2):  # the echo may arrive before the close
                tunnel.recv()
    assert not [thread for thread in threading.enumerate() if thread.name == "arke"]


def test_blocking_connect_without_a_relay_raises() -> None:
    with pytest.raises(arke.RelayUnreachable):
        connect(port=1, wait=0.0).__enter__()
    assert not [thread for thread in threading.enumerate() if thread.name == "arke"]


def test_pending_blocking_call_raises_when_the_mesh_closes(relay: Relay) -> None:
    """No call hangs, whether made before, during or after the close."""

    def call(mesh: Mesh, started: threading.Barrier) -> None:
        started.wait(LIMIT)
        while True:
            mesh.request("work", b"x", timeout=LIMIT)

    for _ in range(5):
        with ThreadPoolExecutor(8) as threads:
            with connect(port=relay.port) as mesh:
                started = threading.Barrier(9)
                callers = [threads.submit(call, mesh, started) for _ in range(8)]
                started.wait(LIMIT)
            for caller in callers:
                assert isinstance(caller.exception(LIMIT), arke.MeshClosed)
