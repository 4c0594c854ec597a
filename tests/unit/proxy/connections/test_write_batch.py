from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from arke_proxy.connections.write_batch import BatchedWriter, WriteBatch


@pytest.fixture
async def ends() -> AsyncIterator[tuple[BatchedWriter, socket.socket]]:
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    yield BatchedWriter(WriteBatch(loop), transport), theirs
    transport.abort()
    theirs.close()


def read(theirs: socket.socket) -> bytes:
    try:
        return theirs.recv(1 << 20)
    except BlockingIOError:
        return b""


async def test_what_is_small_leaves_by_the_end_of_the_turn(
    ends: tuple[BatchedWriter, socket.socket],
) -> None:
    writer, theirs = ends
    writer.write(b"one, ")
    writer.write(b"two")
    assert read(theirs) == b""
    assert await asyncio.get_running_loop().sock_recv(theirs, 100) == b"one, two"


async def test_what_is_large_leaves_at_once_and_behind_what_is_held(
    ends: tuple[BatchedWriter, socket.socket],
) -> None:
    writer, theirs = ends
    writer.write(b"small")
    writer.write(b"x" * 10_000)
    assert read(theirs) == b"small" + b"x" * 10_000


async def test_nothing_is_held_back_from_a_connection_that_closes(
    ends: tuple[BatchedWriter, socket.socket],
) -> None:
    writer, theirs = ends
    writer.write(b"last")
    writer.flushed_transport().close()
    assert await asyncio.get_running_loop().sock_recv(theirs, 100) == b"last"
    assert await asyncio.get_running_loop().sock_recv(theirs, 100) == b""
