"""Many Iris programs: at once, one after another, and one that does not read."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

import arke
from support.iris_client import Handlers, IrisProgram, iris_program
from support.iris_packets import Op
from support.protocol_pairs import echo_request
from support.raw_iris import raw_iris
from support.relay_status import wait_for_members
from support.relays import Relay, Relays
from support.waiting import LIMIT, wait_until_async

pytestmark = [pytest.mark.alone, pytest.mark.usefixtures("raised_descriptor_limit")]

MIB = 1024 * 1024
UNREAD = 64 * MIB  # bytes that a relay queues for a program that does not read


async def test_a_thousand_programs_at_once(node: Relay) -> None:
    async with AsyncExitStack() as stack:
        programs: list[IrisProgram] = []
        for number in range(1000):
            cluster = f"crowd {number % 10}" if number % 2 else ""
            made = await stack.enter_async_context(
                iris_program(node.port, cluster, Handlers(echo_request))
            )
            programs.append(made)
        observer = await stack.enter_async_context(arke.connect(port=node.port))
        assert (await observer.status())["programs"] == 1001
        replies = await asyncio.gather(
            *(
                program.request(f"crowd {1 + 2 * (number % 5)}", b"%d" % number)
                for number, program in enumerate(programs)
            )
        )
        assert replies == [b"%d" % number for number in range(1000)]
        await asyncio.gather(*(program.detach() for program in programs))
        assert (await observer.status())["programs"] == 1
        assert (await observer.status())["clusters"] == {}


async def test_attaching_registering_and_detaching_hundreds_of_times(
    nodes: tuple[Relay, Relay],
) -> None:
    near, far = nodes
    async with arke.connect(port=far.port) as observer:
        before = (await observer.status())["programs"]
        for number in range(300):
            async with iris_program(near.port, "reconnecting", Handlers(echo_request)) as program:
                if number % 10 == 0:
                    assert await program.request("reconnecting", b"x") == b"x"
        await wait_for_members(observer, "reconnecting", 0)
        async with iris_program(near.port, "reconnecting", Handlers(echo_request)):
            await wait_for_members(observer, "reconnecting", 1)
            assert await observer.request("reconnecting", b"x", timeout=LIMIT) == b"x"

        async def all_detached() -> bool:
            return bool((await observer.status())["programs"] == before)

        await wait_until_async(all_detached)


async def test_aborted_connections_leave_no_members(node: Relay) -> None:
    async with arke.connect(port=node.port) as observer:
        for number in range(300):
            async with raw_iris(node.port, "aborted") as raw:
                if number % 3 == 0:
                    await raw.send_packet(Op.REQUEST, 1, "aborted", b"x", 30_000)
                if number % 3 == 1:
                    await raw.send_packet(Op.TUNNEL_INIT, 1, "aborted", 30_000)
        await wait_for_members(observer, "aborted", 0)

        async def alone() -> bool:
            return bool((await observer.status())["programs"] == 1)

        await wait_until_async(alone)


async def test_subscriber_that_does_not_read_uses_bounded_memory_and_delays_no_other(
    relays: Relays,
) -> None:
    relay = relays.start()
    size = 60_000
    async with (
        iris_program(relay.port) as reader,
        raw_iris(relay.port, "") as stalled,
    ):
        await stalled.send_packet(Op.SUBSCRIBE, "t")
        await stalled.wait_until_processed()
        await stalled.send_packet(Op.SUBSCRIBE, "t")
        await reader.subscribe("t")
        stalled.writer.transport.pause_reading()  # type: ignore[attr-defined]
        before = relay.memory
        most = 0
        for number in range(4 * UNREAD // size):
            body = number.to_bytes(size, "big")
            await reader.publish("t", body)
            assert await reader.next_event() == ("t", body)
            most = max(most, relay.memory - before)
    assert most < UNREAD + 16 * MIB
