"""Processes that `os.fork` makes: neither hang, nor keep a dead parent attached."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest

import arke
from support.processes import start_process
from support.relay_status import wait_for_members
from support.relays import Relay
from support.traffic import echo_service
from support.waiting import LIMIT

SERVICE = """
import asyncio, os, sys, time
import arke

service = arke.Service("parent", port=int(sys.argv[1]))

@service.on_request
async def answer(request):
    if os.fork() == 0:
        time.sleep(600)
        os._exit(0)
    return b"forked"

service.run()
"""

BLOCKING = """
import os, sys, threading
import arke, arke.blocking

with arke.blocking.connect(port=int(sys.argv[1])) as mesh:
    assert mesh.request("echo", b"parent", timeout=20) == b"parent"
    with mesh.tunnel("echo", timeout=20) as tunnel:
        child = os.fork()
        if child == 0:
            try:
                tunnel.recv()
            except arke.MeshClosed as error:
                assert "fork" in str(error)
            replies = []

            def call():
                replies.append(mesh.request("echo", b"c", timeout=20))

            calls = [threading.Thread(target=call) for _ in range(8)]
            for call in calls:
                call.start()
            for call in calls:
                call.join()
            assert replies == [b"c"] * 8, replies
            mesh.close()
            print("child done", flush=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert status == 0, status
    assert mesh.request("echo", b"parent", timeout=20) == b"parent"
print("parent done", flush=True)
"""

MULTIPROCESSING = """
import multiprocessing, sys
import arke.blocking

mesh = arke.blocking.connect(port=int(sys.argv[1]))

def work(number):
    return mesh.request("echo", b"%d" % number, timeout=20)

if __name__ == "__main__":
    with mesh, multiprocessing.get_context("fork").Pool(3) as pool:
        assert mesh.request("echo", b"first", timeout=20) == b"first"
        assert pool.map(work, range(30)) == [b"%d" % number for number in range(30)]
    print("parent done", flush=True)
"""

ASYNCIO = """
import asyncio, os, sys
import arke

async def main():
    async with arke.connect(port=int(sys.argv[1])) as mesh:
        child = os.fork()
        if child == 0:
            for call in (
                lambda: mesh.request("echo", b"", timeout=20),
                lambda: mesh.publish("topic", b""),
                lambda: mesh.members("echo"),
            ):
                try:
                    call().send(None)
                except arke.MeshClosed as error:
                    print(error, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        assert await mesh.request("echo", b"parent", timeout=20) == b"parent"
        print("parent done", flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("script", [BLOCKING, MULTIPROCESSING], ids=["prefork", "multiprocessing"])
async def test_blocking_mesh_attaches_again_in_a_fork(
    nodes: tuple[Relay, Relay], tmp_path: Path, script: str
) -> None:
    path = tmp_path / "program.py"
    path.write_text(script, encoding="utf-8")
    service = echo_service("echo", nodes[1].port)

    @service.on_tunnel
    async def hold(tunnel: arke.Tunnel) -> None:
        async for _ in tunnel:
            pass

    async with service, arke.connect(port=nodes[0].port) as mesh:
        await wait_for_members(mesh, "echo", 1)
        process = start_process("program", (sys.executable, path, str(nodes[0].port)))
        await asyncio.to_thread(process.wait_for_line, "parent done", LIMIT)
        assert await asyncio.to_thread(process.wait, LIMIT) == 0


async def test_asyncio_mesh_says_what_is_wrong_in_a_fork(nodes: tuple[Relay, Relay]) -> None:
    async with echo_service("echo", nodes[1].port), arke.connect(port=nodes[0].port) as mesh:
        await wait_for_members(mesh, "echo", 1)
        process = start_process("program", (sys.executable, "-c", ASYNCIO, str(nodes[0].port)))
        await asyncio.to_thread(process.wait_for_line, "parent done", LIMIT)
        assert process.log.count("this process is a fork of the one that attached") == 3


async def test_killed_service_leaves_although_its_fork_lives(nodes: tuple[Relay, Relay]) -> None:
    """The kernel would keep the connection open as long as the child has its descriptor."""
    process = start_process("service", (sys.executable, "-c", SERVICE, str(nodes[1].port)))
    async with arke.connect(port=nodes[0].port) as mesh:
        await wait_for_members(mesh, "parent", 1)
        assert await mesh.request("parent", b"", timeout=LIMIT) == b"forked"
        process.signal(signal.SIGKILL)
        await asyncio.to_thread(process.wait, LIMIT)
        async with asyncio.timeout(15):  # the relay notices silence after 30 s
            await wait_for_members(mesh, "parent", 0)
