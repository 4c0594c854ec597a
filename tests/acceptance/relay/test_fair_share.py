"""Abusive programs that follow the protocol affect only themselves."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress

import pytest

import arke
from arke.wire.limits import CHUNK, MAX_HEADERS, MAX_TOPICS
from arke.wire.messages import Failure, Op
from arke_relay.core.directory import MAX_ENTRIES
from support.raw_program import RawProgram, packed, raw_program
from support.relay_status import member_count, wait_for_members, wait_for_topic
from support.relays import Relays
from support.traffic import Traffic, echo_service
from support.waiting import LIMIT

MIB = 1024 * 1024
UNREAD = 64 * MIB  # bytes that a relay queues for a program that does not read


async def test_replies_to_requests_of_other_members_are_ignored(relays: Relays) -> None:
    relay = relays.start()
    service = arke.Service("work", port=relay.port)
    started, release = asyncio.Event(), asyncio.Event()

    @service.on_request
    async def answer(received: arke.Request) -> bytes:
        started.set()
        await release.wait()
        return b"mine"

    async with service, arke.connect(port=relay.port) as mesh:
        request = asyncio.ensure_future(mesh.request("work", b"", timeout=LIMIT))
        await started.wait()
        async with raw_program(relay.port, "forger") as forger:
            await forger.send_message([Op.REGISTER, "work", None])
            for number in range(100):
                await forger.send_message(
                    [Op.REPLY, number, b"forged"],
                    [Op.FAULT, number, "Forged", "forged"],
                    [Op.REFUSED, number, "forged"],
                    [Op.CANCEL, number],
                )
            await forger.wait_until_processed()
            assert not request.done()
        release.set()
        assert await request == b"mine"


@pytest.mark.alone
async def test_subscriber_that_does_not_read_uses_bounded_memory(
    relays: Relays,
) -> None:
    relay = relays.start()
    count = 4 * UNREAD // CHUNK
    async with (
        arke.connect(port=relay.port) as publisher,
        arke.connect(port=relay.port) as reader,
        reader.subscribe("t") as events,
        raw_program(relay.port, "slow") as slow,
    ):
        await slow.send_message([Op.SUBSCRIBE, "t"])
        await slow.wait_until_processed()
        slow.writer.transport.pause_reading()
        before = relay.memory
        most = 0
        for number in range(count):
            await publisher.publish("t", number.to_bytes(CHUNK))
            async with asyncio.timeout(LIMIT):
                assert (await anext(events)).body == number.to_bytes(CHUNK)
            most = max(most, relay.memory - before)
        assert events.dropped == 0
    assert UNREAD / 2 < most < UNREAD + 16 * MIB


async def test_peer_frames_stay_within_the_size_limit(relays: Relays) -> None:
    """libzmq closes a link on an oversized frame, which would break every program's traffic."""
    one, other = relays.start_pair()
    headers = {"h": "x" * (MAX_HEADERS - 1)}
    whole = [[Op.PUBLISH, "t", bytes(CHUNK), headers]]
    cut = [[Op.CHUNK, 1, 3 * CHUNK, bytes(CHUNK)]] * 3 + [[Op.PUBLISH, "t", 1, headers]]
    async with (
        arke.connect(port=one.port) as near,
        arke.connect(port=other.port) as far,
        far.subscribe("t") as events,
        raw_program(one.port, "greedy") as greedy,
    ):
        await wait_for_topic(near, "t")
        sent = []
        # While the peer is stopped, its queued messages are packed into the fullest frames.
        other.process.stop()
        await greedy.send_message(*[[Op.PUBLISH, "t", bytes(CHUNK), None]] * 100)
        for count in range(100, 140):
            small = [[Op.PUBLISH, "t", bytes(500), None]] * count
            await greedy.send_message(*small, *(cut if count % 2 else whole))
            sent += [500] * count + [3 * CHUNK if count % 2 else CHUNK]
        await greedy.wait_until_processed()
        other.process.cont()
        async with asyncio.timeout(LIMIT):
            received = [len((await anext(events)).body) for _ in range(100 + len(sent))]
        assert sorted(received[100:]) == sorted(sent)
    for relay in (one, other):
        assert relay.process.log.count("peer lost") == 0


async def test_too_many_subscriptions_do_not_disconnect_the_node(relays: Relays) -> None:
    one, other = relays.start_pair()
    async with AsyncExitStack() as stack:
        for number in range(MAX_ENTRIES // MAX_TOPICS + 1):
            program = await stack.enter_async_context(raw_program(one.port, f"busy{number}"))
            topics = (f"{number}/{topic}" for topic in range(MAX_TOPICS))
            await program.send(packed(*([Op.SUBSCRIBE, topic] for topic in topics)))
            await program.wait_until_processed()
        async with echo_service("after", one.port), arke.connect(port=other.port) as far:
            await wait_for_members(far, "after", 1)
            assert await far.request("after", b"x") == b"x"
    async with (
        arke.connect(port=one.port) as near,
        arke.connect(port=other.port) as far,
        near.subscribe("now") as events,
    ):
        await wait_for_topic(far, "now")
        await far.publish("now", b"x")
        async with asyncio.timeout(LIMIT):
            assert (await anext(events)).body == b"x"
    for relay in (one, other):
        assert relay.process.log.count("peer lost") == 0


async def test_disconnected_member_is_removed_even_if_it_never_reads(relays: Relays) -> None:
    relay = relays.start()
    async with (
        arke.connect(port=relay.port) as mesh,
        raw_program(relay.port, "caller") as caller,
        raw_program(relay.port, "slow") as slow,
    ):
        await slow.send_message([Op.REGISTER, "work", None], [Op.SUBSCRIBE, "t"])
        await slow.wait_until_processed()
        slow.writer.transport.pause_reading()
        for _ in range(UNREAD // 2 // CHUNK):
            await mesh.publish("t", bytes(CHUNK))
        await caller.send_message([Op.REQUEST, 1, "work", b"", 600_000, False, None])
        await caller.wait_until_processed()
        await slow.send(b"\xc1")
        assert (await caller.receive_only(Op.FAILED))[1:3] == (1, Failure.MEMBER_LOST)
        assert await member_count(mesh, "work") == 0


@pytest.mark.alone
async def test_flooding_program_does_not_starve_other_programs(relays: Relays) -> None:
    """Each flood uses the operations that cost a relay the most work per byte."""
    one, other = relays.start_pair()
    floods = [[Op.PING, 1], [Op.STATUS, 1], [Op.REQUEST, 1, "no", b"", 1, False, None]]
    async with echo_service("echo", other.port), arke.connect(port=one.port) as mesh:
        await wait_for_members(mesh, "echo", 1)
        for flood in floods:
            async with raw_program(one.port, "flood") as program:
                flooding = asyncio.ensure_future(flood_with(program, packed(flood) * 100_000))
                async with Traffic("echo", [mesh]) as traffic:
                    await traffic.wait_for_replies(20)
                flooding.cancel()
                await asyncio.gather(flooding, return_exceptions=True)
    for relay in (one, other):
        assert relay.process.log.count("peer lost") == 0


async def flood_with(program: RawProgram, data: bytes) -> None:
    """Send the same data repeatedly, and discard everything received."""

    async def read() -> None:
        while await program.reader.read(MIB):
            pass

    async with asyncio.TaskGroup() as both:
        both.create_task(read())
        while True:
            program.writer.write(data)
            await program.writer.drain()


async def test_program_that_changes_registrations_too_often_is_disconnected(relays: Relays) -> None:
    """Every change is sent to every peer, so the relay limits the rate."""
    one, other = relays.start_pair()
    for change in (
        ([Op.REGISTER, "a", None], [Op.UNREGISTER]),
        ([Op.SUBSCRIBE, "a"], [Op.UNSUBSCRIBE, "a"]),
    ):
        async with raw_program(one.port, "restless") as program:
            with suppress(ConnectionError):
                await program.send(packed(*change) * 100_000)
            await program.wait_until_closed()
            one.process.wait_for_line("program detached .*reason=not_allowed", LIMIT)
    for relay in (one, other):
        assert relay.process.log.count("peer lost") == 0
