"""TunnelTransport between an asyncio protocol and the member's end of a real tunnel."""

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


class RecordingProtocol(asyncio.Protocol):
    """Records its calls and data. `keep_open` is the return value of `eof_received`."""

    def __init__(self, *, keep_open: bool = False) -> None:
        self.received = b""
        self.calls: list[str] = []
        self.keep_open = keep_open
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.changed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.calls.append("made")

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.changed.set()

    def eof_received(self) -> bool:
        self._note("eof")
        return self.keep_open

    def pause_writing(self) -> None:
        self._note("pause")

    def resume_writing(self) -> None:
        self._note("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self._note("lost")
        self.lost.set_result(exc)

    async def wait_for(self, event: str) -> None:
        while event not in self.calls:
            self.changed.clear()
            await self.changed.wait()

    async def wait_for_data(self, size: int) -> None:
        while len(self.received) < size:
            self.changed.clear()
            await self.changed.wait()

    def _note(self, event: str) -> None:
        self.calls.append(event)
        self.changed.set()


@dataclass
class Connection:
    wire: Wire
    transport: TunnelTransport
    protocol: RecordingProtocol
    member: arke.Tunnel


@pytest.fixture
async def connection() -> AsyncIterator[Connection]:
    wire = Wire()
    protocol = RecordingProtocol()
    transport = TunnelTransport(wire.ends[0], protocol, asyncio.get_running_loop())
    async with asyncio.timeout(LIMIT):
        yield Connection(wire, transport, protocol, wire.ends[1])
    transport.abort()
    async with asyncio.timeout(LIMIT):
        await protocol.lost
        # Wait for the end of both tasks of the transport.
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0)


async def run_loop(count: int = 20) -> None:
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
    received = b""
    while len(received) < len(sent):
        message = await connection.member.recv()
        assert len(message) <= 65536
        received += message
    assert received == sent


async def test_received_messages_reach_the_protocol(connection: Connection) -> None:
    await connection.member.send(b"HTTP/1.1 ")
    await connection.member.send(b"200 OK")
    await connection.protocol.wait_for_data(15)
    assert connection.protocol.received == b"HTTP/1.1 200 OK"


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
    await protocol.wait_for("resume")
    assert transport.get_write_buffer_size() == 0


async def test_unacknowledged_bytes_count_as_buffered(connection: Connection) -> None:
    transport, protocol = connection.transport, connection.protocol
    transport.write(bytes(MIB))
    await run_loop()
    assert protocol.calls == ["made", "pause"]
    buffered = transport.get_write_buffer_size()
    assert buffered > MIB - 3 * 65536
    received = 0
    while received < MIB:
        received += len(await connection.member.recv())
    await protocol.wait_for("resume")


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
    sending = asyncio.create_task(_send_messages(connection.member, 1000))
    await run_loop(100)
    assert protocol.received == b""
    assert not sending.done()
    assert connection.wire.most_held <= connection.wire.window
    transport.resume_reading()
    assert transport.is_reading()
    await sending
    await protocol.wait_for_data(1000 * 1000)


async def _receive_all(tunnel: arke.Tunnel) -> list[bytes]:
    return [message async for message in tunnel]


async def _send_messages(tunnel: arke.Tunnel, count: int) -> None:
    for _ in range(count):
        await tunnel.send(bytes(1000))


# Closing.


async def test_write_eof_keeps_reading(connection: Connection) -> None:
    connection.protocol.keep_open = True
    connection.transport.write(b"last")
    connection.transport.write_eof()
    connection.transport.write(b"ignored")
    assert [message async for message in connection.member] == [b"last"]
    await connection.member.send(b"answer")
    await connection.protocol.wait_for_data(6)
    connection.member.close_send()
    await connection.protocol.wait_for("eof")
    assert connection.protocol.calls == ["made", "eof"]


async def test_eof_of_member_closes_unless_protocol_keeps_it_open(connection: Connection) -> None:
    await connection.member.send(b"answer")
    connection.member.close_send()
    assert await connection.protocol.lost is None
    assert connection.protocol.calls == ["made", "eof", "lost"]
    assert connection.protocol.received == b"answer"
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
    assert connection.protocol.received == b""


async def test_abort_drops_buffered_data_and_aborts_tunnel(connection: Connection) -> None:
    connection.transport.write(bytes(MIB))
    await run_loop()
    connection.transport.abort()
    assert connection.protocol.calls == [
        "made",
        "pause",
    ]  # connection_lost is called in the next iteration
    assert await connection.protocol.lost is None
    assert connection.transport.get_write_buffer_size() == 0
    with pytest.raises(arke.TunnelClosed, match="aborted by the proxy"):
        await _receive_all(connection.member)


async def test_aborted_tunnel_is_reported_as_connection_reset(connection: Connection) -> None:
    await connection.member.send(b"partial")
    await run_loop()
    connection.member.abort("reset\nby peer" + "r" * 1000, "ConnectionResetError")
    lost = await connection.protocol.lost
    assert isinstance(lost, ConnectionResetError)
    text = str(lost)
    assert text.startswith("ConnectionResetError: reset?by peer")
    assert len(text) == 100
    assert connection.protocol.calls == ["made", "lost"]
    assert connection.protocol.received == b"partial"


async def test_abort_during_write_is_reported_once(connection: Connection) -> None:
    connection.transport.write(bytes(MIB))
    await run_loop()
    connection.member.abort("failed")
    assert isinstance(await connection.protocol.lost, ConnectionResetError)
    await run_loop()
    assert connection.protocol.calls.count("lost") == 1


async def test_tunnel_that_member_closes_at_once_is_closing() -> None:
    wire = Wire()

    class Member:
        async def http_tunnel(self, _: str, *, timeout: float) -> arke.Tunnel:  # noqa: ASYNC109
            wire.ends[1].close_send()
            return wire.ends[0]

    protocol = RecordingProtocol()
    mesh = cast("arke.Mesh", Member())
    loop = asyncio.get_running_loop()
    assert (await connect_through(mesh, "member", protocol, loop, LIMIT)).is_closing()
    async with asyncio.timeout(LIMIT):
        assert await protocol.lost is None


async def test_set_protocol_redirects_data(connection: Connection) -> None:
    other = RecordingProtocol()
    connection.transport.set_protocol(other)
    assert connection.transport.get_protocol() is other
    await connection.member.send(b"frame")
    await other.wait_for_data(5)
    assert connection.protocol.received == b""
    connection.transport.set_protocol(connection.protocol)


async def test_exception_in_protocol_aborts_the_tunnel(connection: Connection) -> None:
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    def fail(data: bytes) -> None:
        raise ValueError("bug in the protocol")

    connection.protocol.data_received = fail  # type: ignore[method-assign]
    await connection.member.send(b"x")
    assert await connection.protocol.lost is None
    assert isinstance(reported[0]["exception"], ValueError)
