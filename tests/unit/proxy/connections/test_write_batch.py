from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from arke_proxy.connections.write_batch import BatchedWriter, WriteBatch


@pytest.fixture
async def writer_and_peer() -> AsyncIterator[tuple[BatchedWriter, socket.socket]]:
    loop = asyncio.get_running_loop()
    sock, peer = socket.socketpair()
    peer.setblocking(False)
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=sock)
    yield BatchedWriter(WriteBatch(loop), transport), peer
    transport.abort()
    peer.close()


def read_available(peer: socket.socket) -> bytes:
    try:
        return peer.recv(1 << 20)
    except BlockingIOError:
        return b""


async def test_small_writes_are_joined_at_end_of_loop_iteration(
    writer_and_peer: tuple[BatchedWriter, socket.socket],
) -> None:
    writer, peer = writer_and_peer
    writer.write(b"one, ")
    writer.write(b"two")
    assert read_available(peer) == b""
    assert await asyncio.get_running_loop().sock_recv(peer, 100) == b"one, two"


async def test_large_write_is_immediate_and_in_order(
    writer_and_peer: tuple[BatchedWriter, socket.socket],
) -> None:
    writer, peer = writer_and_peer
    writer.write(b"small")
    writer.write(b"x" * 10_000)
    assert read_available(peer) == b"small" + b"x" * 10_000


async def test_pending_data_is_flushed_before_close(
    writer_and_peer: tuple[BatchedWriter, socket.socket],
) -> None:
    writer, peer = writer_and_peer
    writer.write(b"last")
    writer.flushed_transport().close()
    assert await asyncio.get_running_loop().sock_recv(peer, 100) == b"last"
    assert await asyncio.get_running_loop().sock_recv(peer, 100) == b""
