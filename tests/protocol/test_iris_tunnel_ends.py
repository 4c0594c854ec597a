"""How tunnels of Iris programs come to an end, at either end, and how openings fail."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

import arke
from support.iris_client import Handlers, IrisTimeout, iris_program
from support.iris_packets import Op
from support.iris_tunnel import CHUNK, IrisTunnel, TunnelEnded
from support.protocol_pairs import ECHO, TUNNEL_ENDED, ProtocolPair, Tunnel, echo_tunnel, program
from support.raw_iris import raw_iris
from support.relay_status import wait_for_members
from support.relays import Relay, Relays
from support.waiting import LIMIT

MIB = 1024 * 1024


@pytest.mark.parametrize("closer", ["caller", "member"])
async def test_what_was_sent_before_a_graceful_end_arrives(ends: ProtocolPair, closer: str) -> None:
    sent = [bytes([size % 251]) * size for size in range(1, 300_000, 10_000)]
    got: list[bytes] = []
    read = asyncio.Event()

    async def pour(tunnel: Tunnel) -> None:
        for message in sent:
            await tunnel.send(message)

    async def keep(tunnel: Tunnel) -> None:
        got.extend([message async for message in tunnel])
        read.set()

    handler, mine = (keep, pour) if closer == "caller" else (pour, keep)
    async with ends.connected_caller(Handlers(tunnel=handler)) as caller:
        async with caller.tunnel(ends.cluster) as tunnel:
            await mine(tunnel)
        async with asyncio.timeout(LIMIT):
            await read.wait()
    assert got == sent


async def test_half_closed_by_a_native_caller_it_still_carries_the_answer(
    nodes: tuple[Relay, Relay],
) -> None:
    """An Iris tunnel has no halves: its program hears of the end when both are closed."""
    ends = ProtocolPair("native", "iris", *nodes)
    ended = asyncio.Event()

    async def add_up(tunnel: IrisTunnel) -> None:
        numbers = [int(await tunnel.recv()) for _ in range(1000)]
        await tunnel.send(str(sum(numbers)).encode())
        assert [message async for message in tunnel] == []
        ended.set()

    async with ends.connected_caller(Handlers(tunnel=add_up)) as caller, asyncio.timeout(LIMIT):
        async with caller.tunnel(ends.cluster) as tunnel:
            assert isinstance(tunnel, arke.Tunnel)
            for number in range(1000):
                await tunnel.send(str(number).encode())
            tunnel.close_send()
            assert await tunnel.recv() == b"499500"
        await ended.wait()


async def test_half_closed_by_a_native_member_it_still_reads(nodes: tuple[Relay, Relay]) -> None:
    ends = ProtocolPair("iris", "native", *nodes)
    heard: asyncio.Future[list[bytes]] = asyncio.get_running_loop().create_future()

    async def listen(tunnel: arke.Tunnel) -> None:
        await tunnel.send(b"go on")
        tunnel.close_send()
        heard.set_result([message async for message in tunnel])

    async with ends.connected_caller(Handlers(tunnel=listen)) as caller, asyncio.timeout(LIMIT):
        async with caller.tunnel(ends.cluster) as tunnel:
            assert await tunnel.recv() == b"go on"
            for _ in range(100):
                await tunnel.send(bytes(10_000))
        assert await heard == [bytes(10_000)] * 100


async def test_a_program_that_leaves_hears_all_that_is_under_way_and_then_no_more(
    nodes: tuple[Relay, Relay],
) -> None:
    """Whatever it still says meanwhile: its last word is the relay's close."""
    ends = ProtocolPair("native", "iris", *nodes)
    async with (
        raw_iris(ends.member_relay.port, ends.cluster) as member,
        arke.connect(port=ends.caller_relay.port) as caller,
    ):
        await wait_for_members(caller, ends.cluster, 1)

        async def pour() -> None:
            async with caller.tunnel(ends.cluster, timeout=LIMIT) as tunnel:
                while True:
                    await tunnel.send(bytes(300_000))

        pouring = asyncio.ensure_future(pour())
        _, build, _ = await member.receive()
        await member.send_packet(Op.TUNNEL_CONFIRM, build, 1)
        await member.send_packet(Op.TUNNEL_ALLOWANCE, 1, 64 * MIB)
        packet = await member.receive_only(Op.TUNNEL_TRANSFER)
        await member.send_packet(Op.CLOSE)
        while packet[0] != Op.CLOSE:
            member.send_packet_nowait(Op.TUNNEL_ALLOWANCE, 1, CHUNK)
            packet = await member.receive()
        assert packet == (Op.CLOSE, "")
        with pytest.raises(EOFError):
            await member.receive()
        with pytest.raises(arke.TunnelClosed):
            await pouring


async def test_a_chunk_beyond_what_is_left_waits_and_outlives_its_sender(
    nodes: tuple[Relay, Relay],
) -> None:
    """A sender may send while its allowance is positive, close at once, and leave at once."""
    ends = ProtocolPair("iris", "native", *nodes)
    go_on = asyncio.Event()
    heard: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()

    async def listen(tunnel: arke.Tunnel) -> None:
        await go_on.wait()
        heard.set_result([len(message) async for message in tunnel])

    async with (
        ends.running_member(Handlers(tunnel=listen)),
        raw_iris(ends.caller_relay.port, "") as caller,
        asyncio.timeout(LIMIT),
    ):
        await caller.send_packet(Op.TUNNEL_INIT, 1, ends.cluster, 30_000)
        await caller.receive_only(Op.TUNNEL_CONFIRM)
        _, _, allowance = await caller.receive_only(Op.TUNNEL_ALLOWANCE)
        sizes = [CHUNK] * (allowance // CHUNK - 1) + [CHUNK - 1, CHUNK]
        for size in sizes:
            await caller.send_packet(Op.TUNNEL_TRANSFER, 1, size, bytes(size))
        await caller.send_packet(Op.TUNNEL_CLOSE, 1)
        await caller.send_packet(Op.CLOSE)
        assert await caller.receive_only(Op.TUNNEL_CLOSE) == (Op.TUNNEL_CLOSE, 1, "")
        go_on.set()
        assert await caller.receive() == (Op.CLOSE, "")
        assert await heard == sizes


async def test_both_ends_at_once(ends: ProtocolPair) -> None:
    """They cross on the way; each ends gracefully all the same."""

    async def leave(tunnel: Tunnel) -> None:
        await tunnel.send(b"x")

    async with ends.connected_caller(Handlers(ECHO.request, leave)) as caller:
        for _ in range(50):
            async with caller.tunnel(ends.cluster) as tunnel:
                assert await tunnel.recv() == b"x"
        assert await caller.request(ends.cluster, b"well") == b"well"


async def test_sending_on_a_tunnel_that_has_ended_fails_and_reading_ends(
    ends: ProtocolPair,
) -> None:
    async def leave(tunnel: Tunnel) -> None:
        await tunnel.send(b"last words")

    async with (
        ends.connected_caller(Handlers(tunnel=leave)) as caller,
        caller.tunnel(ends.cluster) as tunnel,
    ):
        assert [message async for message in tunnel] == [b"last words"]
        with pytest.raises(TUNNEL_ENDED):
            await tunnel.recv()
        with pytest.raises(TUNNEL_ENDED):
            await tunnel.send(b"x")


async def test_a_native_handler_that_raises_tells_the_iris_end(nodes: tuple[Relay, Relay]) -> None:
    ends = ProtocolPair("iris", "native", *nodes)
    service = arke.Service(ends.cluster, port=ends.member_relay.port)

    @service.on_tunnel
    async def fail(tunnel: arke.Tunnel) -> None:
        await tunnel.recv()
        raise LookupError("not here")

    async with (
        service,
        iris_program(ends.caller_relay.port) as caller,
        arke.connect(port=ends.caller_relay.port) as observer,
    ):
        await wait_for_members(observer, ends.cluster, 1)
        async with caller.tunnel(ends.cluster) as tunnel:
            await tunnel.send(b"x")
            with pytest.raises(TunnelEnded, match="not here"):
                await tunnel.recv()


async def test_a_native_caller_that_fails_tells_the_iris_end(nodes: tuple[Relay, Relay]) -> None:
    ends = ProtocolPair("native", "iris", *nodes)
    seen: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def wait(tunnel: IrisTunnel) -> None:
        try:
            await tunnel.recv()
        except TunnelEnded as error:
            seen.set_result(str(error))

    async with ends.connected_caller(Handlers(tunnel=wait)) as caller, asyncio.timeout(LIMIT):
        with pytest.raises(ZeroDivisionError):
            async with caller.tunnel(ends.cluster):
                raise ZeroDivisionError("oh")
        assert "oh" in await seen


async def test_an_end_that_dies_is_told_at_the_other(ends: ProtocolPair) -> None:
    ends.member = "iris"
    ready = asyncio.Event()

    async def wait(tunnel: IrisTunnel) -> None:
        ready.set()
        await tunnel.wait_until_ended()

    async with AsyncExitStack() as stack, asyncio.timeout(LIMIT):
        member = await stack.enter_async_context(
            iris_program(ends.member_relay.port, ends.cluster, Handlers(tunnel=wait))
        )
        caller = await stack.enter_async_context(program(ends.caller, ends.caller_relay.port))
        observer = await stack.enter_async_context(arke.connect(port=ends.caller_relay.port))
        await wait_for_members(observer, ends.cluster, 1)
        async with caller.tunnel(ends.cluster) as tunnel:
            await ready.wait()
            member.raw.writer.transport.abort()
            with pytest.raises(TUNNEL_ENDED, match=r"disconnected|lost|ended|closed"):
                await tunnel.recv()


async def test_a_relay_that_dies_is_told_at_the_other(relays: Relays) -> None:
    one, other = relays.start_pair()
    ends = ProtocolPair("iris", "native", one, other)
    async with AsyncExitStack() as stack, asyncio.timeout(LIMIT):
        service = arke.Service(ends.cluster, port=other.port)
        service.on_tunnel(echo_tunnel)
        await service.__aenter__()
        caller = await stack.enter_async_context(iris_program(one.port))
        observer = await stack.enter_async_context(arke.connect(port=one.port))
        await wait_for_members(observer, ends.cluster, 1)
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
    ends = ProtocolPair("iris", "iris", *nodes)
    async with (
        raw_iris(ends.member_relay.port, ends.cluster) as member,
        iris_program(ends.caller_relay.port) as caller,
        arke.connect(port=ends.caller_relay.port) as observer,
    ):
        await wait_for_members(observer, ends.cluster, 1)
        with pytest.raises(IrisTimeout):
            async with caller.tunnel(ends.cluster, 0.2):
                pass
        _, build, limit = await member.receive_only(Op.TUNNEL_INIT)
        assert limit == CHUNK
        await member.send_packet(Op.TUNNEL_CONFIRM, build, 7)
        await member.send_packet(Op.TUNNEL_ALLOWANCE, 7, 1000)
        await member.wait_until_processed()
        call = asyncio.ensure_future(caller.request(ends.cluster, b"x"))
        _, number, _, _ = await member.receive_only(Op.REQUEST)
        await member.send_packet(Op.REPLY, number, b"well")
        assert await call == b"well"
