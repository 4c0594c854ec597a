"""Tunnels of Iris programs: messages and flow control."""

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


# Messages.


@pytest.mark.parametrize("size", [1, 5000, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 5 * MIB])
async def test_messages_of_any_size_are_echoed(ends: ProtocolPair, size: int) -> None:
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


async def test_empty_message_of_a_native_program_is_skipped_for_iris(
    nodes: tuple[Relay, Relay],
) -> None:
    """The Iris protocol cannot encode it: size 0 means a continued message."""
    ends = ProtocolPair("native", "iris", *nodes)
    async with ends.connected_caller(ECHO) as caller, caller.tunnel(ends.cluster) as tunnel:
        for message in (b"", b"1", b"", b"", b"2"):
            await tunnel.send(message)
        assert [await tunnel.recv(), await tunnel.recv()] == [b"1", b"2"]


async def test_message_that_its_sender_abandons_is_dropped(ends: ProtocolPair) -> None:
    """A new size starts before the last message is complete; its allowance is granted again."""
    ends.caller = "iris"
    async with ends.connected_caller(ECHO) as caller, caller.tunnel(ends.cluster) as tunnel:
        assert isinstance(tunnel, IrisTunnel)
        for turn in range(100):  # more, all together, than any window
            await tunnel.send_chunk(3 * CHUNK, body(CHUNK))
            await tunnel.send_chunk(0, body(CHUNK))
            if turn % 2:
                await tunnel.send(body(CHUNK + turn))
                assert await tunnel.recv() == body(CHUNK + turn)


# Flow control.


@pytest.mark.alone
async def test_stalled_reader_blocks_only_its_own_writer(ends: ProtocolPair) -> None:
    stalled, resume, done = asyncio.Event(), asyncio.Event(), asyncio.Event()
    size, count, read = 50_000, 3000, 0

    async def read_late(tunnel: Tunnel) -> None:
        nonlocal read
        async for message in tunnel:
            if message == b"echo":
                await tunnel.send(message)
                continue
            stalled.set()
            await resume.wait()
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

        async def send_all() -> None:
            nonlocal sent
            for _ in range(count):
                await slow.send(bytes(size))
                sent += size

        before = ends.caller_relay.memory, ends.member_relay.memory
        sending = asyncio.ensure_future(send_all())
        async with asyncio.timeout(LIMIT):
            await stalled.wait()
            last = -1
            while sent != last:  # until it makes no progress while the other tunnel does
                last = sent
                for _ in range(50):
                    await quick.send(b"echo")
                    assert await quick.recv() == b"echo"
                    assert await caller.request(ends.cluster, b"well") == b"well"
        assert not sending.done()
        # An Iris reader has granted 64 MiB; native ones, and relays, have their window.
        room = 64 * MIB if ends.member == "iris" else WINDOW
        assert sent <= room + 2 * WINDOW
        for relay, memory in zip((ends.caller_relay, ends.member_relay), before, strict=True):
            assert relay.memory - memory < 64 * MIB
        resume.set()
        async with asyncio.timeout(LIMIT):
            await sending
        await stack.aclose()
        async with asyncio.timeout(LIMIT):
            await done.wait()


async def test_relay_sends_no_more_than_the_iris_allowance(nodes: tuple[Relay, Relay]) -> None:
    """The client raises ProtocolViolation if the relay exceeds the allowance."""
    ends = ProtocolPair("native", "iris", *nodes)
    started, resume = asyncio.Event(), asyncio.Event()

    async def add_up(tunnel: Tunnel) -> None:
        started.set()
        await resume.wait()
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

            async def send_all() -> None:
                for _ in range(300):
                    await tunnel.send(bytes(10_000))

            sending = asyncio.ensure_future(send_all())
            async with asyncio.timeout(LIMIT):
                await started.wait()
                resume.set()
                await sending
                assert await tunnel.recv() == b"3000000"


async def test_allowance_is_kept_inside_a_large_message(
    nodes: tuple[Relay, Relay],
) -> None:
    """The reader grants allowance only after a complete message."""
    ends = ProtocolPair("native", "iris", *nodes)
    resume, done = asyncio.Event(), asyncio.Event()
    size, count = 3 * MIB, 8

    async def read_late(tunnel: IrisTunnel) -> None:
        await resume.wait()
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

            async def send_all() -> None:
                nonlocal sent
                for _ in range(count):
                    await tunnel.send(bytes(size))
                    sent += 1

            sending = asyncio.ensure_future(send_all())
            last = -1
            while sent != last or sent == 0:
                last = sent
                for _ in range(100):
                    await caller.request(ends.cluster, b"x")
            resume.set()
            await sending
            await done.wait()
            assert member.attached


async def test_message_over_the_readers_window_is_delivered(
    nodes: tuple[Relay, Relay],
) -> None:
    """The reader grants nothing before the message is complete, so the relay exceeds the allowance
    for this message and subtracts it from later grants.
    """
    ends = ProtocolPair("native", "iris", *nodes)
    sizes = [300_000] * 5 + [10_000] * 100
    async with (
        raw_iris(ends.member_relay.port, ends.cluster) as member,
        arke.connect(port=ends.caller_relay.port) as caller,
        asyncio.timeout(LIMIT),
    ):
        await wait_for_members(caller, ends.cluster, 1)

        async def send_all() -> None:
            async with caller.tunnel(ends.cluster, timeout=LIMIT) as tunnel:
                for size in sizes:
                    await tunnel.send(bytes(size))

        sending = asyncio.ensure_future(send_all())
        _, build, _ = await member.receive()
        await member.send_packet(Op.TUNNEL_CONFIRM, build, 1)
        await member.send_packet(Op.TUNNEL_ALLOWANCE, 1, 100_000)
        for size in sizes:
            left = size
            while left:
                left -= len((await member.receive_only(Op.TUNNEL_TRANSFER))[3])
            assert left == 0
            await member.send_packet(Op.TUNNEL_ALLOWANCE, 1, size)
        await sending
