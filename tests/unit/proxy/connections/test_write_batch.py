from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from arke_proxy.connections.write_batch import Outlet, Turn


@pytest.fixture
async def ends() -> AsyncIterator[tuple[Outlet, socket.socket]]:
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    yield Outlet(Turn(loop), transport), theirs
    transport.abort()
    theirs.close()


def read(theirs: socket.socket) -> bytes:
    try:
        return theirs.recv(1 << 20)
    except BlockingIOError:
        return b""


async def test_what_is_small_leaves_by_the_end_of_the_turn(
    ends: tuple[Outlet, socket.socket],
) -> None:
    outlet, theirs = ends
    outlet.write(b"one, ")
    outlet.write(b"two")
    assert read(theirs) == b""
    assert await asyncio.get_running_loop().sock_recv(theirs, 100) == b"one, two"


async def test_what_is_large_leaves_at_once_and_behind_what_is_held(
    ends: tuple[Outlet, socket.socket],
) -> None:
    outlet, theirs = ends
    outlet.write(b"small")
    outlet.write(b"x" * 10_000)
    assert read(theirs) == b"small" + b"x" * 10_000


async def test_nothing_is_held_back_from_a_connection_that_closes(
    ends: tuple[Outlet, socket.socket],
) -> None:
    outlet, theirs = ends
    outlet.write(b"last")
    outlet.transport().close()
    assert await asyncio.get_running_loop().sock_recv(theirs, 100) == b"last"
    assert await asyncio.get_running_loop().sock_recv(theirs, 100) == b""
