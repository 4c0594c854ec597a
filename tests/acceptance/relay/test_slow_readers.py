"""What was left unread by those who are gone is given back: not at some collection, at once."""

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


async def publish(mesh: arke.Mesh, octets: int) -> None:
    for _ in range(octets // CHUNK):
        await mesh.publish("t", bytes(CHUNK))
    await mesh.status()  # behind what was published


async def until_nobody_listens(mesh: arke.Mesh) -> None:
    async def nobody() -> bool:
        return "t" not in (await mesh.status())["topics"]

    await wait_until_async(nobody)


async def deaf_program(relay: Relay, mesh: arke.Mesh, relays: Relays) -> None:
    async with raw_program(relay.port, "deaf") as deaf:
        await deaf.send_message([Op.SUBSCRIBE, "t"])
        await deaf.wait_until_processed()
        deaf.writer.transport.pause_reading()
        await publish(mesh, UNREAD)
        deaf.writer.transport.abort()


async def paused_peer(relay: Relay, mesh: arke.Mesh, relays: Relays) -> None:
    other = relays.start(join=[relay])
    async with AsyncExitStack() as stack:
        listener = await stack.enter_async_context(arke.connect(port=other.port))
        await stack.enter_async_context(listener.subscribe("t"))
        await wait_for_topic(mesh, "t")
        other.process.stop()
        await publish(mesh, UNREAD)
        other.process.kill()
        await asyncio.to_thread(other.process.wait, LIMIT)


@pytest.mark.parametrize("who", [deaf_program, paused_peer])
async def test_what_the_gone_left_unread_does_not_pile_up(who, relays: Relays) -> None:
    relay = relays.start()
    async with arke.connect(port=relay.port) as mesh:
        before = relay.memory
        most = 0
        for _ in range(ROUNDS):
            await who(relay, mesh, relays)
            most = max(most, relay.memory - before)
            await until_nobody_listens(mesh)
    assert UNREAD / 2 < most < 3 * UNREAD / 2
