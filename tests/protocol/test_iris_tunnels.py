"""Tunnels of Iris programs: what they carry, and who waits for whom."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

import arke
from support.iris_client import Handlers, iris_program
from support.iris_packets import Op
from support.iris_tunnel import CHUNK, IrisTunnel
from support.protocol_pairs import ECHO, Program, ProtocolPair, Tunnel
from support.raw_iris import raw_iris
from support.relay_status import wait_for_members
from support.relays import Relay
from support.waiting import LIMIT

MIB = 1024 * 1024
WINDOW = 4 * MIB  # that native ends grant


def body(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


# What they carry.


@pytest.mark.parametrize("size", [1, 5000, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 5 * MIB])
async def test_messages_of_any_size_come_back(ends: ProtocolPair, size: int) -> None:
    async with ends.connected_caller(ECHO) as caller, caller.tunnel(ends.cluster) as tunnel:
        for _ in range(3):
            await tunnel.send(body(size))
            assert await tunnel.recv() == body(size)


async def test_thousands_of_messages_both_ways_keep_their_order(ends: ProtocolPair) -> None:
    sizes = [1] * 97 + [3000, 70_000, 200_000]
    sent = [n.to_bytes(2, "big")[-min(2, sizes[n % 100]) :] for n in range(3000)]
    sent = [start + bytes(sizes[n % 100] - len(start)) for n, start in enumerate(sent)]
    async with ends.connected_caller(ECHO) as caller, caller.tunnel(ends.cluster) as tunnel:

        async def send() -> None:
            for message in sent:
                await tunnel.send(message)

        sending = asyncio.ensure_future(send())
        for message in sent:
            assert await tunnel.recv() == message
        await sending


async def test_many_tunnels_at_once(ends: ProtocolPair) -> None:
    async def talk(caller: Program, number: int) -> None:
        async with caller.tunnel(ends.cluster) as tunnel:
            for turn in range(5):
                message = f"{number} {turn}".encode() * 2000
                await tunnel.send(message)
                assert await tunnel.recv() == message

    async with ends.connected_caller(ECHO) as caller:
        await asyncio.gather(*(talk(caller, number) for number in range(100)))


async def test_an_empty_message_of_a_native_program_does_not_exist_for_iris(
    nodes: tuple[Relay, Relay],
) -> None:
    """The protocol has no octets for it: a size of 0 is a chunk that goes on."""
    ends = ProtocolPair("native", "iris", *nodes)
    async with ends.connected_caller(ECHO) as caller, caller.tunnel(ends.cluster) as tunnel:
        for message in (b"", b"1", b"", b"", b"2"):
            await tunnel.send(message)
        assert [await tunnel.recv(), await tunnel.recv()] == [b"1", b"2"]


async def test_a_message_that_its_sender_gives_up_is_not_there(ends: ProtocolPair) -> None:
    """A new size while one is incomplete; its octets are given back."""
    ends.caller = "iris"
    async with ends.connected_caller(ECHO) as caller, caller.tunnel(ends.cluster) as tunnel:
        assert isinstance(tunnel, IrisTunnel)
        for turn in range(100):  # more, all together, than any window
            await tunnel.send_chunk(3 * CHUNK, body(CHUNK))
            await tunnel.send_chunk(0, body(CHUNK))
            if turn % 2:
                await tunnel.send(body(CHUNK + turn))
                assert await tunnel.recv() == body(CHUNK + turn)


# Who waits for whom.


@pytest.mark.alone
async def test_a_reader_that_stops_stops_its_own_writer_and_nobody_else(ends: ProtocolPair) -> None:
    stalled, go_on, done = asyncio.Event(), asyncio.Event(), asyncio.Event()
    size, count, read = 50_000, 3000, 0

    async def read_late(tunnel: Tunnel) -> None:
        nonlocal read
        async for message in tunnel:
            if message == b"echo":
                await tunnel.send(message)
                continue
            stalled.set()
            await go_on.wait()
            read += len(message)
            if read == count * size:
                done.set()

    async with (
        ends.connected_caller(Handlers(ECHO.request, read_late)) as caller,
        AsyncExitStack() as stack,
    ):
        slow = await stack.enter_async_context(caller.tunnel(ends.cluster))
        quick = await stack.enter_async_context(caller.tunnel(ends.cluster))
        sent = 0

        async def pour() -> None:
            nonlocal sent
            for _ in range(count):
                await slow.send(bytes(size))
                sent += size

        before = ends.caller_relay.memory, ends.member_relay.memory
        pouring = asyncio.ensure_future(pour())
        async with asyncio.timeout(LIMIT):
            await stalled.wait()
            last = -1
            while sent != last:  # until it stands still while others have had their turns
                last = sent
                for _ in range(50):
                    await quick.send(b"echo")
                    assert await quick.recv() == b"echo"
                    assert await caller.request(ends.cluster, b"well") == b"well"
        assert not pouring.done()
        # An Iris reader has granted 64 MiB; native ones, and relays, have their window.
        room = 64 * MIB if ends.member == "iris" else WINDOW
        assert sent <= room + 2 * WINDOW
        for relay, memory in zip((ends.caller_relay, ends.member_relay), before, strict=True):
            assert relay.memory - memory < 64 * MIB
        go_on.set()
        async with asyncio.timeout(LIMIT):
            await pouring
        await stack.aclose()
        async with asyncio.timeout(LIMIT):
            await done.wait()


async def test_no_more_comes_than_an_iris_reader_allows(nodes: tuple[Relay, Relay]) -> None:
    """Its client complains where the relay sends on without an allowance."""
    ends = ProtocolPair("native", "iris", *nodes)
    started, go_on = asyncio.Event(), asyncio.Event()

    async def add_up(tunnel: Tunnel) -> None:
        started.set()
        await go_on.wait()
        total = 0
        while total < 300 * 10_000:
            total += len(await tunnel.recv())
        await tunnel.send(str(total).encode())

    handlers = Handlers(tunnel=add_up)
    async with (
        iris_program(ends.member_relay.port, ends.cluster, handlers, window=100_000),
        arke.connect(port=ends.caller_relay.port) as caller,
    ):
        await wait_for_members(caller, ends.cluster, 1)
        async with caller.tunnel(ends.cluster, timeout=LIMIT) as tunnel:

            async def pour() -> None:
                for _ in range(300):
                    await tunnel.send(bytes(10_000))

            pouring = asyncio.ensure_future(pour())
            async with asyncio.timeout(LIMIT):
                await started.wait()
                go_on.set()
                await pouring
                assert await tunnel.recv() == b"3000000"


async def test_nothing_comes_beyond_the_allowance_in_the_middle_of_a_message(
    nodes: tuple[Relay, Relay],
) -> None:
    """The reader has whole messages to read, and grants again when it has."""
    ends = ProtocolPair("native", "iris", *nodes)
    go_on, done = asyncio.Event(), asyncio.Event()
    size, count = 3 * MIB, 8

    async def read_late(tunnel: IrisTunnel) -> None:
        await go_on.wait()
        assert [len(await tunnel.recv()) for _ in range(count)] == [size] * count
        done.set()

    handlers = Handlers(ECHO.request, read_late)
    async with (
        iris_program(ends.member_relay.port, ends.cluster, handlers, window=4 * MIB) as member,
        arke.connect(port=ends.caller_relay.port) as caller,
    ):
        await wait_for_members(caller, ends.cluster, 1)
        async with caller.tunnel(ends.cluster, timeout=LIMIT) as tunnel, asyncio.timeout(LIMIT):
            sent = 0

            async def pour() -> None:
                nonlocal sent
                for _ in range(count):
                    await tunnel.send(bytes(size))
                    sent += 1

            pouring = asyncio.ensure_future(pour())
            last = -1
            while sent != last or sent == 0:
                last = sent
                for _ in range(100):
                    await caller.request(ends.cluster, b"x")
            go_on.set()
            await pouring
            await done.wait()
            assert member.attached


async def test_a_message_larger_than_the_readers_window_gets_through(
    nodes: tuple[Relay, Relay],
) -> None:
    """Its reader grants nothing before it has all of it: the relay lends, and takes back."""
    ends = ProtocolPair("native", "iris", *nodes)
    sizes = [300_000] * 5 + [10_000] * 100
    async with (
        raw_iris(ends.member_relay.port, ends.cluster) as member,
        arke.connect(port=ends.caller_relay.port) as caller,
        asyncio.timeout(LIMIT),
    ):
        await wait_for_members(caller, ends.cluster, 1)

        async def pour() -> None:
            async with caller.tunnel(ends.cluster, timeout=LIMIT) as tunnel:
                for size in sizes:
                    await tunnel.send(bytes(size))

        pouring = asyncio.ensure_future(pour())
        _, build, _ = await member.receive()
        await member.send_packet(Op.TUNNEL_CONFIRM, build, 1)
        await member.send_packet(Op.TUNNEL_ALLOWANCE, 1, 100_000)
        for size in sizes:
            left = size
            while left:
                left -= len((await member.receive_only(Op.TUNNEL_TRANSFER))[3])
            assert left == 0
            await member.send_packet(Op.TUNNEL_ALLOWANCE, 1, size)
        await pouring
