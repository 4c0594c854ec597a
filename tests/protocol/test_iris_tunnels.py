"""Tunnels of Iris programs: what they carry, who waits for whom, and how they end."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from iris_client import Handlers, IrisTimeout, iris_program
from iris_packets import Op
from iris_raw import raw_iris
from iris_tunnel import CHUNK, IrisTunnel, TunnelEnded
from mixed import ECHO, ENDED, Ends, Program, Tunnel, converse, program
from traffic import until_members

import arke
from relays import LIMIT, Relay, Relays

MIB = 1024 * 1024
WINDOW = 4 * MIB  # that native ends grant


def body(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


# What they carry.


@pytest.mark.parametrize("size", [1, 5000, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 5 * MIB])
async def test_messages_of_any_size_come_back(ends: Ends, size: int) -> None:
    async with ends.talking(ECHO) as caller, caller.tunnel(ends.cluster) as tunnel:
        for _ in range(3):
            await tunnel.send(body(size))
            assert await tunnel.recv() == body(size)


async def test_thousands_of_messages_both_ways_keep_their_order(ends: Ends) -> None:
    sizes = [1] * 97 + [3000, 70_000, 200_000]
    sent = [n.to_bytes(2, "big")[-min(2, sizes[n % 100]) :] for n in range(3000)]
    sent = [start + bytes(sizes[n % 100] - len(start)) for n, start in enumerate(sent)]
    async with ends.talking(ECHO) as caller, caller.tunnel(ends.cluster) as tunnel:

        async def send() -> None:
            for message in sent:
                await tunnel.send(message)

        sending = asyncio.ensure_future(send())
        for message in sent:
            assert await tunnel.recv() == message
        await sending


async def test_many_tunnels_at_once(ends: Ends) -> None:
    async def talk(caller: Program, number: int) -> None:
        async with caller.tunnel(ends.cluster) as tunnel:
            for turn in range(5):
                message = f"{number} {turn}".encode() * 2000
                await tunnel.send(message)
                assert await tunnel.recv() == message

    async with ends.talking(ECHO) as caller:
        await asyncio.gather(*(talk(caller, number) for number in range(100)))


async def test_an_empty_message_of_a_native_program_does_not_exist_for_iris(
    nodes: tuple[Relay, Relay],
) -> None:
    """The protocol has no octets for it: a size of 0 is a chunk that goes on."""
    ends = Ends("native", "iris", *nodes)
    async with ends.talking(ECHO) as caller, caller.tunnel(ends.cluster) as tunnel:
        for message in (b"", b"1", b"", b"", b"2"):
            await tunnel.send(message)
        assert [await tunnel.recv(), await tunnel.recv()] == [b"1", b"2"]


async def test_a_message_that_its_sender_gives_up_is_not_there(ends: Ends) -> None:
    """A new size while one is incomplete; its octets are given back."""
    ends.caller = "iris"
    async with ends.talking(ECHO) as caller, caller.tunnel(ends.cluster) as tunnel:
        assert isinstance(tunnel, IrisTunnel)
        for turn in range(100):  # more, all together, than any window
            await tunnel.send_chunk(3 * CHUNK, body(CHUNK))
            await tunnel.send_chunk(0, body(CHUNK))
            if turn % 2:
                await tunnel.send(body(CHUNK + turn))
                assert await tunnel.recv() == body(CHUNK + turn)


# Who waits for whom.


async def test_a_reader_that_stops_stops_its_own_writer_and_nobody_else(ends: Ends) -> None:
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

    async with ends.talking(Handlers(ECHO.request, read_late)) as caller, AsyncExitStack() as stack:
        slow = await stack.enter_async_context(caller.tunnel(ends.cluster))
        quick = await stack.enter_async_context(caller.tunnel(ends.cluster))
        sent = 0

        async def pour() -> None:
            nonlocal sent
            for _ in range(count):
                await slow.send(bytes(size))
                sent += size

        before = ends.near.memory, ends.far.memory
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
        for relay, memory in zip((ends.near, ends.far), before, strict=True):
            assert relay.memory - memory < 3 * WINDOW + 16 * MIB
        go_on.set()
        async with asyncio.timeout(LIMIT):
            await pouring
        await stack.aclose()
        async with asyncio.timeout(LIMIT):
            await done.wait()


async def test_no_more_comes_than_an_iris_reader_allows(nodes: tuple[Relay, Relay]) -> None:
    """Its client complains where the relay sends on without an allowance."""
    ends = Ends("native", "iris", *nodes)
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
        iris_program(ends.far.port, ends.cluster, handlers, window=100_000),
        arke.connect(port=ends.near.port) as caller,
    ):
        await until_members(caller, ends.cluster, 1)
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


# Ends.


@pytest.mark.parametrize("closer", ["caller", "member"])
async def test_what_was_sent_before_a_graceful_end_arrives(ends: Ends, closer: str) -> None:
    sent = [body(size) for size in range(1, 300_000, 10_000)]
    got: list[bytes] = []
    read = asyncio.Event()

    async def pour(tunnel: Tunnel) -> None:
        for message in sent:
            await tunnel.send(message)

    async def keep(tunnel: Tunnel) -> None:
        got.extend([message async for message in tunnel])
        read.set()

    handler, mine = (keep, pour) if closer == "caller" else (pour, keep)
    async with ends.talking(Handlers(tunnel=handler)) as caller:
        async with caller.tunnel(ends.cluster) as tunnel:
            await mine(tunnel)
        async with asyncio.timeout(LIMIT):
            await read.wait()
    assert got == sent


async def test_half_closed_by_a_native_caller_it_still_carries_the_answer(
    nodes: tuple[Relay, Relay],
) -> None:
    """An Iris tunnel has no halves: its program hears of the end when both are closed."""
    ends = Ends("native", "iris", *nodes)
    ended = asyncio.Event()

    async def add_up(tunnel: IrisTunnel) -> None:
        numbers = [int(await tunnel.recv()) for _ in range(1000)]
        await tunnel.send(str(sum(numbers)).encode())
        assert [message async for message in tunnel] == []
        ended.set()

    async with ends.talking(Handlers(tunnel=add_up)) as caller, asyncio.timeout(LIMIT):
        async with caller.tunnel(ends.cluster) as tunnel:
            assert isinstance(tunnel, arke.Tunnel)
            for number in range(1000):
                await tunnel.send(str(number).encode())
            tunnel.close_send()
            assert await tunnel.recv() == b"499500"
        await ended.wait()


async def test_half_closed_by_a_native_member_it_still_reads(nodes: tuple[Relay, Relay]) -> None:
    ends = Ends("iris", "native", *nodes)
    heard: asyncio.Future[list[bytes]] = asyncio.get_running_loop().create_future()

    async def listen(tunnel: arke.Tunnel) -> None:
        await tunnel.send(b"go on")
        tunnel.close_send()
        heard.set_result([message async for message in tunnel])

    async with ends.talking(Handlers(tunnel=listen)) as caller, asyncio.timeout(LIMIT):
        async with caller.tunnel(ends.cluster) as tunnel:
            assert await tunnel.recv() == b"go on"
            for _ in range(100):
                await tunnel.send(bytes(10_000))
        assert await heard == [bytes(10_000)] * 100


async def test_a_program_that_leaves_hears_all_that_is_under_way_and_then_no_more(
    nodes: tuple[Relay, Relay],
) -> None:
    """Whatever it still says meanwhile: its last word is the relay's close."""
    ends = Ends("native", "iris", *nodes)
    async with (
        raw_iris(ends.far.port, ends.cluster) as member,
        arke.connect(port=ends.near.port) as caller,
    ):
        await until_members(caller, ends.cluster, 1)

        async def pour() -> None:
            async with caller.tunnel(ends.cluster, timeout=LIMIT) as tunnel:
                while True:
                    await tunnel.send(bytes(300_000))

        pouring = asyncio.ensure_future(pour())
        _, build, _ = await member.hear()
        await member.say(Op.TUNNEL_CONFIRM, build, 1)
        await member.say(Op.TUNNEL_ALLOWANCE, 1, 64 * MIB)
        packet = await member.hear_only(Op.TUNNEL_TRANSFER)
        await member.say(Op.CLOSE)
        while packet[0] != Op.CLOSE:
            member.put(Op.TUNNEL_ALLOWANCE, 1, CHUNK)
            packet = await member.hear()
        assert packet == (Op.CLOSE, "")
        with pytest.raises(EOFError):
            await member.hear()
        with pytest.raises(arke.TunnelClosed):
            await pouring


async def test_a_chunk_beyond_what_is_left_waits_and_outlives_its_sender(
    nodes: tuple[Relay, Relay],
) -> None:
    """A sender may send while its allowance is positive, close at once, and leave at once."""
    ends = Ends("iris", "native", *nodes)
    go_on = asyncio.Event()
    heard: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()

    async def listen(tunnel: arke.Tunnel) -> None:
        await go_on.wait()
        heard.set_result([len(message) async for message in tunnel])

    async with (
        ends.serving(Handlers(tunnel=listen)),
        raw_iris(ends.near.port, "") as caller,
        asyncio.timeout(LIMIT),
    ):
        await caller.say(Op.TUNNEL_INIT, 1, ends.cluster, 30_000)
        await caller.hear_only(Op.TUNNEL_CONFIRM)
        _, _, allowance = await caller.hear_only(Op.TUNNEL_ALLOWANCE)
        sizes = [CHUNK] * (allowance // CHUNK - 1) + [CHUNK - 1, CHUNK]
        for size in sizes:
            await caller.say(Op.TUNNEL_TRANSFER, 1, size, bytes(size))
        await caller.say(Op.TUNNEL_CLOSE, 1)
        await caller.say(Op.CLOSE)
        assert await caller.hear_only(Op.TUNNEL_CLOSE) == (Op.TUNNEL_CLOSE, 1, "")
        go_on.set()
        assert await caller.hear() == (Op.CLOSE, "")
        assert await heard == sizes


async def test_both_ends_at_once(ends: Ends) -> None:
    """They cross on the way; each ends gracefully all the same."""

    async def leave(tunnel: Tunnel) -> None:
        await tunnel.send(b"x")

    async with ends.talking(Handlers(ECHO.request, leave)) as caller:
        for _ in range(50):
            async with caller.tunnel(ends.cluster) as tunnel:
                assert await tunnel.recv() == b"x"
        assert await caller.request(ends.cluster, b"well") == b"well"


async def test_sending_on_a_tunnel_that_has_ended_fails_and_reading_ends(ends: Ends) -> None:
    async def leave(tunnel: Tunnel) -> None:
        await tunnel.send(b"last words")

    async with (
        ends.talking(Handlers(tunnel=leave)) as caller,
        caller.tunnel(ends.cluster) as tunnel,
    ):
        assert [message async for message in tunnel] == [b"last words"]
        with pytest.raises(ENDED):
            await tunnel.recv()
        with pytest.raises(ENDED):
            await tunnel.send(b"x")


async def test_a_native_handler_that_raises_tells_the_iris_end(nodes: tuple[Relay, Relay]) -> None:
    ends = Ends("iris", "native", *nodes)
    service = arke.Service(ends.cluster, port=ends.far.port)

    @service.on_tunnel
    async def fail(tunnel: arke.Tunnel) -> None:
        await tunnel.recv()
        raise LookupError("not here")

    async with (
        service,
        iris_program(ends.near.port) as caller,
        arke.connect(port=ends.near.port) as observer,
    ):
        await until_members(observer, ends.cluster, 1)
        async with caller.tunnel(ends.cluster) as tunnel:
            await tunnel.send(b"x")
            with pytest.raises(TunnelEnded, match="not here"):
                await tunnel.recv()


async def test_a_native_caller_that_fails_tells_the_iris_end(nodes: tuple[Relay, Relay]) -> None:
    ends = Ends("native", "iris", *nodes)
    seen: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def wait(tunnel: IrisTunnel) -> None:
        try:
            await tunnel.recv()
        except TunnelEnded as error:
            seen.set_result(str(error))

    async with ends.talking(Handlers(tunnel=wait)) as caller, asyncio.timeout(LIMIT):
        with pytest.raises(ZeroDivisionError):
            async with caller.tunnel(ends.cluster):
                raise ZeroDivisionError("oh")
        assert "oh" in await seen


async def test_an_end_that_dies_is_told_at_the_other(ends: Ends) -> None:
    ends.member = "iris"
    ready = asyncio.Event()

    async def wait(tunnel: IrisTunnel) -> None:
        ready.set()
        await tunnel.ended()

    async with AsyncExitStack() as stack, asyncio.timeout(LIMIT):
        member = await stack.enter_async_context(
            iris_program(ends.far.port, ends.cluster, Handlers(tunnel=wait))
        )
        caller = await stack.enter_async_context(program(ends.caller, ends.near.port))
        observer = await stack.enter_async_context(arke.connect(port=ends.near.port))
        await until_members(observer, ends.cluster, 1)
        async with caller.tunnel(ends.cluster) as tunnel:
            await ready.wait()
            member.raw.writer.transport.abort()
            with pytest.raises(ENDED, match=r"gone|lost|ended|closed"):
                await tunnel.recv()


async def test_a_relay_that_dies_is_told_at_the_other(relays: Relays) -> None:
    one, other = relays.pair()
    ends = Ends("iris", "native", one, other)
    async with AsyncExitStack() as stack, asyncio.timeout(LIMIT):
        service = arke.Service(ends.cluster, port=other.port)
        service.on_tunnel(converse)
        await service.__aenter__()
        caller = await stack.enter_async_context(iris_program(one.port))
        observer = await stack.enter_async_context(arke.connect(port=one.port))
        await until_members(observer, ends.cluster, 1)
        async with caller.tunnel(ends.cluster) as tunnel:
            await tunnel.send(b"x")
            assert await tunnel.recv() == b"x"
            other.process.kill()
            with pytest.raises(TunnelEnded, match=r"."):
                await tunnel.recv()
        await service.__aexit__(None, None, None)


async def test_an_opening_nobody_confirms_is_timed_out_and_late_word_dropped(
    nodes: tuple[Relay, Relay],
) -> None:
    ends = Ends("iris", "iris", *nodes)
    async with (
        raw_iris(ends.far.port, ends.cluster) as member,
        iris_program(ends.near.port) as caller,
        arke.connect(port=ends.near.port) as observer,
    ):
        await until_members(observer, ends.cluster, 1)
        with pytest.raises(IrisTimeout):
            async with caller.tunnel(ends.cluster, 0.2):
                pass
        _, build, limit = await member.hear_only(Op.TUNNEL_INIT)
        assert limit == CHUNK
        await member.say(Op.TUNNEL_CONFIRM, build, 7)
        await member.say(Op.TUNNEL_ALLOWANCE, 7, 1000)
        await member.settled()
        call = asyncio.ensure_future(caller.request(ends.cluster, b"x"))
        _, number, _, _ = await member.hear_only(Op.REQUEST)
        await member.say(Op.REPLY, number, b"well")
        assert await call == b"well"
