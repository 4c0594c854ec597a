"""The relay frees unread messages when a slow reader disconnects, without the garbage collector."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

import arke
from arke.wire.limits import CHUNK
from arke.wire.messages import Op
from support.raw_program import raw_program
from support.relay_status import wait_for_topic
from support.relays import Relay, Relays
from support.waiting import LIMIT, wait_until_async

pytestmark = pytest.mark.alone

MIB = 1024 * 1024
UNREAD = 40 * MIB
ROUNDS = 4


async def publish(mesh: arke.Mesh, size: int) -> None:
    for _ in range(size // CHUNK):
        await mesh.publish("t", bytes(CHUNK))
    await mesh.status()  # the relay answers this after it has processed the publications


async def wait_until_no_subscribers(mesh: arke.Mesh) -> None:
    async def no_subscribers() -> bool:
        return "t" not in (await mesh.status())["topics"]

    await wait_until_async(no_subscribers)


async def program_that_never_reads(relay: Relay, mesh: arke.Mesh, relays: Relays) -> None:
    async with raw_program(relay.port, "slow") as slow:
        await slow.send_message([Op.SUBSCRIBE, "t"])
        await slow.wait_until_processed()
        slow.writer.transport.pause_reading()
        await publish(mesh, UNREAD)
        slow.writer.transport.abort()


async def peer_that_is_paused(relay: Relay, mesh: arke.Mesh, relays: Relays) -> None:
    peer = relays.start(join=[relay])
    async with AsyncExitStack() as stack:
        subscriber = await stack.enter_async_context(arke.connect(port=peer.port))
        await stack.enter_async_context(subscriber.subscribe("t"))
        await wait_for_topic(mesh, "t")
        peer.process.stop()
        await publish(mesh, UNREAD)
        peer.process.kill()
        await asyncio.to_thread(peer.process.wait, LIMIT)


@pytest.mark.parametrize("fill_queue", [program_that_never_reads, peer_that_is_paused])
async def test_unread_messages_are_freed_when_the_reader_disconnects(
    fill_queue, relays: Relays
) -> None:
    relay = relays.start()
    async with arke.connect(port=relay.port) as mesh:
        before = relay.memory
        most = 0
        for _ in range(ROUNDS):
            await fill_queue(relay, mesh, relays)
            most = max(most, relay.memory - before)
            await wait_until_no_subscribers(mesh)
    # The queue was filled, and no round kept the messages of an earlier one.
    assert UNREAD / 2 < most < 3 * UNREAD / 2
