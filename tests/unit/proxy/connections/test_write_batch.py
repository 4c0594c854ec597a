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


async def test_small_writes_are_joined_at_end_of_iteration(
    ends: tuple[BatchedWriter, socket.socket],
) -> None:
    writer, theirs = ends
    writer.write(b"one, ")
    writer.write(b"two")
    assert read(theirs) == b""
    assert await asyncio.get_running_loop().sock_recv(theirs, 100) == b"one, two"


async def test_large_write_is_immediate_and_in_order(
    ends: tuple[BatchedWriter, socket.socket],
) -> None:
    writer, theirs = ends
    writer.write(b"small")
    writer.write(b"x" * 10_000)
    assert read(theirs) == b"small" + b"x" * 10_000


async def test_pending_data_is_flushed_before_close(
    ends: tuple[BatchedWriter, socket.socket],
) -> None:
    writer, theirs = ends
    writer.write(b"last")
    writer.flushed_transport().close()
    assert await asyncio.get_running_loop().sock_recv(theirs, 100) == b"last"
    assert await asyncio.get_running_loop().sock_recv(theirs, 100) == b""
