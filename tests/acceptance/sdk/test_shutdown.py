"""Shutdown and reconnect: last messages arrive, and stalled programs delay no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from msgpack import packb

import arke
from arke.wire.limits import CHUNK, MAX_TOPICS, READ_SIZE, unpacker
from arke.wire.messages import MAGIC, VERSION, Op
from support.raw_program import raw_program
from support.relay_status import wait_for_members
from support.relays import Relays
from support.traffic import echo_service
from support.waiting import LIMIT

MIB = 1024 * 1024


# Last messages.


async def test_slow_program_reads_all_messages_and_the_close_reason(relays: Relays) -> None:
    relay = relays.start()
    async with arke.connect(port=relay.port) as mesh, raw_program(relay.port, "slow") as slow:
        await slow.send_message([Op.SUBSCRIBE, "t"])
        await slow.wait_until_processed()
        slow.writer.transport.pause_reading()
        for _ in range(150):
            await mesh.publish("t", bytes(CHUNK))
        await mesh.runtime.attachment.connection.synchronize()  # type: ignore[union-attr]
        await slow.send_message([Op.REGISTER, 5, None])
        slow.writer.transport.resume_reading()
        received = [message async for message in everything(slow.reader)]
    assert [message[0] for message in received[:-1]] == [Op.DELIVER_EVENT] * 150
    assert received[-1] == (Op.CLOSE, "protocol error: a name must be text of 1 to 255 bytes")


async def everything(reader: asyncio.StreamReader) -> AsyncIterator[tuple[Any, ...]]:
    messages = unpacker()
    async with asyncio.timeout(LIMIT):
        while data := await reader.read(READ_SIZE):
            messages.feed(data)
            for message in messages:
                yield message


async def test_messages_before_close_are_sent_to_a_draining_relay() -> None:
    """A draining relay no longer answers the ping that would confirm delivery."""
    async with scripted_relay() as (port, received):
        async with arke.connect(port=port) as mesh:
            for _ in range(200):
                await mesh.publish("t", bytes(CHUNK))
            received.send(Op.DRAINING.value, 0, "the relay is shutting down")
            while mesh.attached:
                await asyncio.sleep(0.01)
        async with asyncio.timeout(LIMIT):
            while received.count(Op.PUBLISH) < 200:
                await asyncio.sleep(0.01)


# Draining relays.


async def test_stalled_program_does_not_delay_a_draining_relay(relays: Relays) -> None:
    relay = relays.start("-grace", "600s")
    async with arke.connect(port=relay.port) as mesh, raw_program(relay.port, "stalled") as stalled:
        await stalled.send_message([Op.SUBSCRIBE, "t"])
        await stalled.wait_until_processed()
        stalled.writer.transport.pause_reading()
        for _ in range(2 * 10 * MIB // CHUNK):
            await mesh.publish("t", bytes(CHUNK))
        await mesh.runtime.attachment.connection.synchronize()  # type: ignore[union-attr]
        relay.process.terminate()
        assert relay.process.wait(LIMIT) == 0


async def test_draining_relay_rejects_new_programs(relays: Relays) -> None:
    relay = relays.start("-grace", "600s")
    late = await asyncio.open_connection("127.0.0.1", relay.port)
    started, end = asyncio.Event(), asyncio.Event()
    service = arke.Service("slow", port=relay.port)

    @service.on_request
    async def answer(_: arke.Request) -> bytes:
        started.set()
        await end.wait()
        return b"done"

    async with service, arke.connect(port=relay.port) as mesh:
        call = asyncio.ensure_future(mesh.request("slow", b"", timeout=LIMIT))
        await started.wait()
        relay.process.terminate()
        while mesh.attached:
            await asyncio.sleep(0.01)
        late[1].write(packb((Op.HELLO.value, MAGIC, VERSION, "late")))
        (answered,) = [message async for message in everything(late[0])]
        assert answered == (Op.CLOSE, "the relay is shutting down")
        end.set()
        assert await call == b"done"
    late[1].close()
    await late[1].wait_closed()


# Reconnecting.


async def test_status_request_fails_with_its_relay_and_the_mesh_continues(
    relays: Relays,
) -> None:
    relay = relays.start()
    async with (
        echo_service("echo", relay.port),
        arke.connect(port=relay.port) as mesh,
    ):
        await wait_for_members(mesh, "echo", 1)
        relay.process.stop()
        pending = asyncio.ensure_future(mesh.status())
        call = asyncio.ensure_future(mesh.request("echo", b"again", timeout=LIMIT, idempotent=True))
        await asyncio.sleep(0)
        relay.process.kill()
        with pytest.raises(arke.ConnectionLost):
            await pending
        again = relays.start(port=relay.port)
        assert await call == b"again"
        again.process.kill()
        relays.start(port=relay.port)
        assert await mesh.request("echo", b"more", timeout=LIMIT, idempotent=True) == b"more"


@asynccontextmanager
async def scripted_relay(*, leaving: bool = False) -> AsyncIterator[tuple[int, ByHand]]:
    """A scripted relay that accepts one program, records its messages and answers PINGs."""
    by_hand = ByHand(leaving)
    server = await asyncio.start_server(by_hand.serve, "127.0.0.1", 0)
    async with server, asyncio.timeout(LIMIT):
        yield server.sockets[0].getsockname()[1], by_hand
        await by_hand.disconnected.wait()


class ByHand:
    """The messages that a fake relay received, and its writer."""

    writer: asyncio.StreamWriter

    def __init__(self, leaving: bool) -> None:
        self.disconnected = asyncio.Event()
        self._draining = leaving
        self.received: list[tuple[Any, ...]] = []

    def send(self, *fields: object) -> None:
        self.writer.write(packb(fields))

    def count(self, op: int) -> int:
        return sum(message[0] == op for message in self.received)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.send(Op.WELCOME.value, VERSION, "node", "127.0.0.1", "net", 16 * MIB)
        if self._draining:
            self.send(Op.DRAINING.value, 0, "the relay is shutting down")
        with suppress(ConnectionError):
            await self._record_messages(reader)
        writer.close()
        self.disconnected.set()

    async def _record_messages(self, reader: asyncio.StreamReader) -> None:
        messages = unpacker()
        while data := await reader.read(CHUNK):
            messages.feed(data)
            for message in messages:
                self.received.append(message)
                if message[0] == Op.PING:
                    self.send(Op.PONG.value, message[1])


async def test_draining_sent_with_welcome_is_handled() -> None:
    async with scripted_relay(leaving=True) as (port, _):
        with pytest.raises(arke.ProtocolError, match="shutting down"):
            await arke.connect(port=port, wait=0.0).__aenter__()


# Calls that must not close the connection.


async def test_empty_headers_are_not_sent(relays: Relays) -> None:
    relay = relays.start()
    async with (
        echo_service("echo", relay.port),
        arke.connect(port=relay.port) as mesh,
        mesh.subscribe("t") as events,
    ):
        await mesh.publish("t", b"first")
        event = await anext(events)
        for _ in range(2):  # the first call also checks the name
            assert await mesh.request("echo", b"x", headers=event.headers, timeout=LIMIT) == b"x"
            await mesh.broadcast("echo", b"x", headers=event.headers)
            await mesh.publish("t", b"again", headers=event.headers)
            assert (await anext(events)).headers == {}
        with pytest.raises(ValueError, match="text"):
            await mesh.request("echo", b"x", headers={"a": 1})  # type: ignore[dict-item]
        assert len(mesh.runtime.requests.pending) == 0


async def test_large_events_after_unsubscribe_leave_no_memory(relays: Relays) -> None:
    relay = relays.start()
    async with (
        arke.connect(port=relay.port) as writer,
        arke.connect(port=relay.port) as reader,
    ):
        for _ in range(40):
            async with reader.subscribe("big"):
                for _ in range(4):
                    await writer.publish("big", bytes(4 * MIB))
        link = reader.runtime.attachment.connection
        assert link
        async with asyncio.timeout(LIMIT):
            while link._reassembler.size:  # events in transit are dropped
                await asyncio.sleep(0.01)


async def test_subscribing_too_many_topics_raises(
    relays: Relays,
) -> None:
    relay = relays.start()
    async with arke.connect(port=relay.port) as mesh:
        topics = mesh.runtime.topics
        topics._sinks = {str(number): [] for number in range(MAX_TOPICS)}
        with pytest.raises(ValueError, match=str(MAX_TOPICS)):
            async with mesh.subscribe("one more"):
                raise AssertionError("subscribed")
        topics._sinks = {}
        async with mesh.subscribe("t"):
            pass
    assert relay.process.log.count("program detached") <= 1


async def test_cancelled_close_still_closes(relays: Relays) -> None:
    relay = relays.start()
    mesh = await arke.connect(port=relay.port).__aenter__()
    relay.process.stop()
    closing = asyncio.ensure_future(mesh.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    assert not mesh.attached
    supervisor = mesh.runtime.attachment._supervisor
    assert supervisor
    assert supervisor.done()
    relay.process.cont()
