"""The tunnel transport, as seen by its protocol and by the other end of a real tunnel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import cast

import pytest

import arke
from arke_proxy.backends.mesh_tunnel import TunnelTransport, connect_through
from support.tunnel_wire import Wire

LIMIT = 20.0
MIB = 1024 * 1024


class Recorder(asyncio.Protocol):
    """Records its calls; `stays` is the return value of `eof_received`."""

    def __init__(self, *, stays: bool = False) -> None:
        self.got = b""
        self.calls: list[str] = []
        self.stays = stays
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.changed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.calls.append("made")

    def data_received(self, data: bytes) -> None:
        self.got += data
        self.changed.set()

    def eof_received(self) -> bool:
        self._note("eof")
        return self.stays

    def pause_writing(self) -> None:
        self._note("pause")

    def resume_writing(self) -> None:
        self._note("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self._note("lost")
        self.lost.set_result(exc)

    async def until(self, event: str) -> None:
        while event not in self.calls:
            self.changed.clear()
            await self.changed.wait()

    async def until_got(self, size: int) -> None:
        while len(self.got) < size:
            self.changed.clear()
            await self.changed.wait()

    def _note(self, event: str) -> None:
        self.calls.append(event)
        self.changed.set()


@dataclass
class Connection:
    wire: Wire
    transport: TunnelTransport
    protocol: Recorder
    member: arke.Tunnel


@pytest.fixture
async def connection() -> AsyncIterator[Connection]:
    wire = Wire()
    protocol = Recorder()
    transport = TunnelTransport(wire.ends[0], protocol, asyncio.get_running_loop())
    async with asyncio.timeout(LIMIT):
        yield Connection(wire, transport, protocol, wire.ends[1])
    transport.abort()
    async with asyncio.timeout(LIMIT):
        await protocol.lost
        # Both of its tasks have ended.
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0)


async def turns(count: int = 20) -> None:
    """Run the loop until nothing is ready."""
    for _ in range(count):
        await asyncio.sleep(0)


# Data.


async def test_writes_of_one_iteration_are_sent_as_one_message(connection: Connection) -> None:
    for piece in (b"GET / ", bytearray(b"HTTP/1.1"), memoryview(b"\r\n\r\n"), b""):
        connection.transport.write(piece)
    assert await connection.member.recv() == b"GET / HTTP/1.1\r\n\r\n"


async def test_large_write_is_split_into_messages(connection: Connection) -> None:
    sent = bytes(range(256)) * 1024
    connection.transport.write(sent)
    got = b""
    while len(got) < len(sent):
        message = await connection.member.recv()
        assert len(message) <= 65536
        got += message
    assert got == sent


async def test_received_messages_reach_the_protocol(connection: Connection) -> None:
    await connection.member.send(b"HTTP/1.1 ")
    await connection.member.send(b"200 OK")
    await connection.protocol.until_got(15)
    assert connection.protocol.got == b"HTTP/1.1 200 OK"


# Flow control.


async def test_writing_pauses_and_resumes_at_buffer_limits(connection: Connection) -> None:
    transport, protocol = connection.transport, connection.protocol
    transport.set_write_buffer_limits(high=1000, low=10)
    assert transport.get_write_buffer_limits() == (10, 1000)
    transport.write(bytes(1000))
    assert protocol.calls == ["made"]
    transport.write(b"x")
    assert protocol.calls == ["made", "pause"]
    assert transport.get_write_buffer_size() == 1001
    await protocol.until("resume")
    assert transport.get_write_buffer_size() == 0


async def test_unacknowledged_bytes_count_as_buffered(connection: Connection) -> None:
    transport, protocol = connection.transport, connection.protocol
    transport.write(bytes(MIB))
    await turns()
    assert protocol.calls == ["made", "pause"]
    waiting = transport.get_write_buffer_size()
    assert waiting > MIB - 3 * 65536
    got = 0
    while got < MIB:
        got += len(await connection.member.recv())
    await protocol.until("resume")


@pytest.mark.parametrize(("high", "low"), [(-1, None), (5, 6), (5, -1)])
async def test_invalid_buffer_limits_raise(
    connection: Connection, high: int, low: int | None
) -> None:
    with pytest.raises(ValueError, match="in order"):
        connection.transport.set_write_buffer_limits(high, low)


async def test_paused_reader_gets_all_data_after_resume(connection: Connection) -> None:
    transport, protocol = connection.transport, connection.protocol
    transport.pause_reading()
    assert not transport.is_reading()
    sending = asyncio.create_task(_send(connection.member, 1000))
    await turns(100)
    assert protocol.got == b""
    assert not sending.done()
    assert connection.wire.most_held <= connection.wire.window
    transport.resume_reading()
    assert transport.is_reading()
    await sending
    await protocol.until_got(1000 * 1000)


async def _all(tunnel: arke.Tunnel) -> list[bytes]:
    return [message async for message in tunnel]


async def _send(tunnel: arke.Tunnel, count: int) -> None:
    for _ in range(count):
        await tunnel.send(bytes(1000))


# Closing.


async def test_write_eof_keeps_reading(connection: Connection) -> None:
    connection.protocol.stays = True
    connection.transport.write(b"last")
    connection.transport.write_eof()
    connection.transport.write(b"ignored")
    assert [message async for message in connection.member] == [b"last"]
    await connection.member.send(b"answer")
    await connection.protocol.until_got(6)
    connection.member.close_send()
    await connection.protocol.until("eof")
    assert connection.protocol.calls == ["made", "eof"]


async def test_eof_of_member_closes_unless_protocol_keeps_it_open(connection: Connection) -> None:
    await connection.member.send(b"answer")
    connection.member.close_send()
    assert await connection.protocol.lost is None
    assert connection.protocol.calls == ["made", "eof", "lost"]
    assert connection.protocol.got == b"answer"
    assert not connection.member.peer_reads


async def test_close_sends_buffered_data_first(connection: Connection) -> None:
    transport = connection.transport
    transport.write(bytes(MIB))
    transport.close()
    transport.close()
    assert transport.is_closing()
    transport.write(b"too late")
    assert sum([len(message) async for message in connection.member]) == MIB
    assert await connection.protocol.lost is None
    assert not connection.member.peer_reads


async def test_no_data_is_received_after_close(connection: Connection) -> None:
    await connection.member.send(b"answer")
    connection.transport.close()
    assert await connection.protocol.lost is None
    assert connection.protocol.got == b""


async def test_abort_drops_buffered_data_and_aborts_tunnel(connection: Connection) -> None:
    connection.transport.write(bytes(MIB))
    await turns()
    connection.transport.abort()
    assert connection.protocol.calls == [
        "made",
        "pause",
    ]  # connection_lost comes in the next iteration
    assert await connection.protocol.lost is None
    assert connection.transport.get_write_buffer_size() == 0
    with pytest.raises(arke.TunnelClosed, match="aborted by the proxy"):
        await _all(connection.member)


async def test_aborted_tunnel_is_reported_as_connection_reset(connection: Connection) -> None:
    await connection.member.send(b"half an ans")
    await turns()
    connection.member.abort("reset\nby peer" + "r" * 1000, "ConnectionResetError")
    lost = await connection.protocol.lost
    assert isinstance(lost, ConnectionResetError)
    text = str(lost)
    assert text.startswith("ConnectionResetError: reset?by peer")
    assert len(text) == 100
    assert connection.protocol.calls == ["made", "lost"]
    assert connection.protocol.got == b"half an ans"


async def test_abort_during_write_is_reported_once(connection: Connection) -> None:
    connection.transport.write(bytes(MIB))
    await turns()
    connection.member.abort("gone")
    assert isinstance(await connection.protocol.lost, ConnectionResetError)
    await turns()
    assert connection.protocol.calls.count("lost") == 1


async def test_tunnel_closed_at_once_is_closing() -> None:
    wire = Wire()

    class Member:
        async def http_tunnel(self, _: str, *, timeout: float) -> arke.Tunnel:  # noqa: ASYNC109
            wire.ends[1].close_send()
            return wire.ends[0]

    protocol = Recorder()
    mesh = cast("arke.Mesh", Member())
    loop = asyncio.get_running_loop()
    assert (await connect_through(mesh, "member", protocol, loop, LIMIT)).is_closing()
    async with asyncio.timeout(LIMIT):
        assert await protocol.lost is None


async def test_set_protocol(connection: Connection) -> None:
    other = Recorder()
    connection.transport.set_protocol(other)
    assert connection.transport.get_protocol() is other
    await connection.member.send(b"frame")
    await other.until_got(5)
    assert connection.protocol.got == b""
    connection.transport.set_protocol(connection.protocol)


async def test_exception_in_protocol_aborts_the_tunnel(connection: Connection) -> None:
    raised = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))

    def fail(data: bytes) -> None:
        raise ValueError("a fault of ours")

    connection.protocol.data_received = fail  # type: ignore[method-assign]
    await connection.member.send(b"x")
    assert await connection.protocol.lost is None
    assert isinstance(raised[0]["exception"], ValueError)
