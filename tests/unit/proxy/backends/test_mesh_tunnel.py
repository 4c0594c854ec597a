"""A tunnel as a transport: what a protocol at one end sees, with a real tunnel's other end."""

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
    """Keeps what it is told; `stays` is what it answers to the end of the stream."""

    def __init__(self, *, stays: bool = False) -> None:
        self.got = b""
        self.told: list[str] = []
        self.stays = stays
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.changed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.told.append("made")

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
        while event not in self.told:
            self.changed.clear()
            await self.changed.wait()

    async def until_got(self, size: int) -> None:
        while len(self.got) < size:
            self.changed.clear()
            await self.changed.wait()

    def _note(self, event: str) -> None:
        self.told.append(event)
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
        # Neither of its tasks outlives it.
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0)


async def turns(count: int = 20) -> None:
    """Let everything happen that does not wait for this test."""
    for _ in range(count):
        await asyncio.sleep(0)


# Octets.


async def test_what_is_written_in_one_turn_leaves_as_one_message(connection: Connection) -> None:
    for piece in (b"GET / ", bytearray(b"HTTP/1.1"), memoryview(b"\r\n\r\n"), b""):
        connection.transport.write(piece)
    assert await connection.member.recv() == b"GET / HTTP/1.1\r\n\r\n"


async def test_more_than_a_piece_leaves_in_pieces(connection: Connection) -> None:
    sent = bytes(range(256)) * 1024
    connection.transport.write(sent)
    got = b""
    while len(got) < len(sent):
        message = await connection.member.recv()
        assert len(message) <= 65536
        got += message
    assert got == sent


async def test_what_comes_is_handed_on(connection: Connection) -> None:
    await connection.member.send(b"HTTP/1.1 ")
    await connection.member.send(b"200 OK")
    await connection.protocol.until_got(15)
    assert connection.protocol.got == b"HTTP/1.1 200 OK"


# Room.


async def test_a_writer_is_paused_and_resumed_around_its_limits(connection: Connection) -> None:
    transport, protocol = connection.transport, connection.protocol
    transport.set_write_buffer_limits(high=1000, low=10)
    assert transport.get_write_buffer_limits() == (10, 1000)
    transport.write(bytes(1000))
    assert protocol.told == ["made"]
    transport.write(b"x")
    assert protocol.told == ["made", "pause"]
    assert transport.get_write_buffer_size() == 1001
    await protocol.until("resume")
    assert transport.get_write_buffer_size() == 0


async def test_what_a_slow_member_does_not_take_counts_as_waiting(connection: Connection) -> None:
    transport, protocol = connection.transport, connection.protocol
    transport.write(bytes(MIB))
    await turns()
    assert protocol.told == ["made", "pause"]
    waiting = transport.get_write_buffer_size()
    assert waiting > MIB - 3 * 65536
    got = 0
    while got < MIB:
        got += len(await connection.member.recv())
    await protocol.until("resume")


@pytest.mark.parametrize(("high", "low"), [(-1, None), (5, 6), (5, -1)])
async def test_limits_are_in_order(connection: Connection, high: int, low: int | None) -> None:
    with pytest.raises(ValueError, match="in order"):
        connection.transport.set_write_buffer_limits(high, low)


async def test_a_reader_that_pauses_gets_nothing_and_then_all(connection: Connection) -> None:
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


# Ends.


async def test_half_an_end_leaves_the_other_half(connection: Connection) -> None:
    connection.protocol.stays = True
    connection.transport.write(b"last")
    connection.transport.write_eof()
    connection.transport.write(b"ignored")
    assert [message async for message in connection.member] == [b"last"]
    await connection.member.send(b"answer")
    await connection.protocol.until_got(6)
    connection.member.close_send()
    await connection.protocol.until("eof")
    assert connection.protocol.told == ["made", "eof"]


async def test_the_members_end_closes_unless_the_protocol_stays(connection: Connection) -> None:
    await connection.member.send(b"answer")
    connection.member.close_send()
    assert await connection.protocol.lost is None
    assert connection.protocol.told == ["made", "eof", "lost"]
    assert connection.protocol.got == b"answer"
    assert not connection.member.peer_reads


async def test_closing_sends_what_waits_first(connection: Connection) -> None:
    transport = connection.transport
    transport.write(bytes(MIB))
    transport.close()
    transport.close()
    assert transport.is_closing()
    transport.write(b"too late")
    assert sum([len(message) async for message in connection.member]) == MIB
    assert await connection.protocol.lost is None
    assert not connection.member.peer_reads


async def test_nothing_is_handed_on_after_closing(connection: Connection) -> None:
    await connection.member.send(b"answer")
    connection.transport.close()
    assert await connection.protocol.lost is None
    assert connection.protocol.got == b""


async def test_aborting_drops_what_waits_and_breaks_the_tunnel(connection: Connection) -> None:
    connection.transport.write(bytes(MIB))
    await turns()
    connection.transport.abort()
    assert connection.protocol.told == ["made", "pause"]  # it is told in a turn of its own
    assert await connection.protocol.lost is None
    assert connection.transport.get_write_buffer_size() == 0
    with pytest.raises(arke.TunnelClosed, match="broke it off"):
        await _all(connection.member)


async def test_a_break_is_no_end(connection: Connection) -> None:
    await connection.member.send(b"half an ans")
    await turns()
    connection.member.abort("reset\nby peer" + "r" * 1000, "ConnectionResetError")
    lost = await connection.protocol.lost
    assert isinstance(lost, ConnectionResetError)
    text = str(lost)
    assert text.startswith("ConnectionResetError: reset?by peer")
    assert len(text) == 100
    assert connection.protocol.told == ["made", "lost"]
    assert connection.protocol.got == b"half an ans"


async def test_a_break_while_writing_is_told_once(connection: Connection) -> None:
    connection.transport.write(bytes(MIB))
    await turns()
    connection.member.abort("gone")
    assert isinstance(await connection.protocol.lost, ConnectionResetError)
    await turns()
    assert connection.protocol.told.count("lost") == 1


async def test_one_that_ended_at_once_is_known_to_be_closing() -> None:
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


async def test_another_protocol_takes_over(connection: Connection) -> None:
    other = Recorder()
    connection.transport.set_protocol(other)
    assert connection.transport.get_protocol() is other
    await connection.member.send(b"frame")
    await other.until_got(5)
    assert connection.protocol.got == b""
    connection.transport.set_protocol(connection.protocol)


async def test_what_a_protocol_raises_ends_the_connection(connection: Connection) -> None:
    raised = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))

    def fail(data: bytes) -> None:
        raise ValueError("a fault of ours")

    connection.protocol.data_received = fail  # type: ignore[method-assign]
    await connection.member.send(b"x")
    assert await connection.protocol.lost is None
    assert isinstance(raised[0]["exception"], ValueError)
