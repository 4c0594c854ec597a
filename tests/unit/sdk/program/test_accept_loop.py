from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any

import pytest

from arke.program.accept_loop import AcceptLoop

LIMIT = 20.0  # seconds; reached only when the test fails


@pytest.fixture
def listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


async def accepted(queue: asyncio.Queue[socket.socket]) -> None:
    async with asyncio.timeout(LIMIT):
        (await queue.get()).close()


async def test_connections_are_accepted_until_close(listener: socket.socket) -> None:
    sockets: asyncio.Queue[socket.socket] = asyncio.Queue()
    loop = AcceptLoop(
        asyncio.get_running_loop(), listener, lambda sock, _: sockets.put_nowait(sock), batch=2
    )
    loop.start()
    address = listener.getsockname()
    clients = [socket.create_connection(address) for _ in range(5)]
    for client in clients:
        await accepted(sockets)
        client.close()
    loop.close()
    loop.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


async def test_a_shortage_pauses_and_other_errors_are_skipped(listener: socket.socket) -> None:
    sockets: asyncio.Queue[socket.socket] = asyncio.Queue()
    shortages: list[int | None] = []
    faults = [OSError(errno.ECONNABORTED, ""), OSError(errno.EMFILE, ""), OSError(errno.ENFILE, "")]

    def accept(sock: socket.socket) -> tuple[socket.socket, Any]:
        if faults:
            raise faults.pop(0)
        return sock.accept()

    loop = AcceptLoop(
        asyncio.get_running_loop(),
        listener,
        lambda sock, _: sockets.put_nowait(sock),
        batch=9,
        on_shortage=lambda error: shortages.append(error.errno),
        accept=accept,
    )
    loop.start()
    with socket.create_connection(listener.getsockname()):
        await accepted(sockets)
    loop.close()
    assert shortages == [errno.EMFILE, errno.ENFILE]


async def test_close_cancels_a_pause(listener: socket.socket) -> None:
    paused = asyncio.Event()

    def accept(_: socket.socket) -> tuple[socket.socket, Any]:
        raise OSError(errno.EMFILE, "")

    loop = AcceptLoop(
        asyncio.get_running_loop(),
        listener,
        lambda *_: None,
        batch=1,
        on_shortage=lambda _: paused.set(),
        accept=accept,
    )
    loop.start()
    with socket.create_connection(listener.getsockname()):
        async with asyncio.timeout(LIMIT):
            await paused.wait()
    loop.close()
    assert listener.fileno() < 0
