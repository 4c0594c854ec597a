"""Tunnels of Iris programs: closing at either end, errors, and requests that are not confirmed."""

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
async def test_data_sent_before_a_graceful_close_arrives(ends: ProtocolPair, closer: str) -> None:
    sent = [bytes([size % 251]) * size for size in range(1, 300_000, 10_000)]
    received: list[bytes] = []
    read = asyncio.Event()

    async def send_all(tunnel: Tunnel) -> None:
        for message in sent:
            await tunnel.send(message)

    async def read_all(tunnel: Tunnel) -> None:
        received.extend([message async for message in tunnel])
        read.set()

    handler, own = (read_all, send_all) if closer == "caller" else (send_all, read_all)
    async with ends.connected_caller(Handlers(tunnel=handler)) as caller:
        async with caller.tunnel(ends.cluster) as tunnel:
            await own(tunnel)
        async with asyncio.timeout(LIMIT):
            await read.wait()
    assert received == sent


async def test_tunnel_half_closed_by_a_native_caller_still_delivers_the_reply(
    nodes: tuple[Relay, Relay],
) -> None:
    """The Iris protocol has no half-close: the program gets a close when both sides have closed."""
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


async def test_tunnel_half_closed_by_a_native_member_is_still_read(
    nodes: tuple[Relay, Relay],
) -> None:
    ends = ProtocolPair("iris", "native", *nodes)
    received: asyncio.Future[list[bytes]] = asyncio.get_running_loop().create_future()

    async def listen(tunnel: arke.Tunnel) -> None:
        await tunnel.send(b"go on")
        tunnel.close_send()
        received.set_result([message async for message in tunnel])

    async with ends.connected_caller(Handlers(tunnel=listen)) as caller, asyncio.timeout(LIMIT):
        async with caller.tunnel(ends.cluster) as tunnel:
            assert await tunnel.recv() == b"go on"
            for _ in range(100):
                await tunnel.send(bytes(10_000))
        assert await received == [bytes(10_000)] * 100


async def test_detaching_program_gets_data_in_flight_and_then_only_the_close(
    nodes: tuple[Relay, Relay],
) -> None:
    """CLOSE is the relay's last packet, also if the program still grants allowance."""
    ends = ProtocolPair("native", "iris", *nodes)
    async with (
        raw_iris(ends.member_relay.port, ends.cluster) as member,
        arke.connect(port=ends.caller_relay.port) as caller,
    ):
        await wait_for_members(caller, ends.cluster, 1)

        async def send_all() -> None:
            async with caller.tunnel(ends.cluster, timeout=LIMIT) as tunnel:
                while True:
                    await tunnel.send(bytes(300_000))

        sending = asyncio.ensure_future(send_all())
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
            await sending


async def test_chunk_over_the_remaining_allowance_is_delivered_after_its_sender_detached(
    nodes: tuple[Relay, Relay],
) -> None:
    """A sender may send while its allowance is positive, then close the tunnel and detach."""
    ends = ProtocolPair("iris", "native", *nodes)
    resume = asyncio.Event()
    received: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()

    async def listen(tunnel: arke.Tunnel) -> None:
        await resume.wait()
        received.set_result([len(message) async for message in tunnel])

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
        resume.set()
        assert await caller.receive() == (Op.CLOSE, "")
        assert await received == sizes


async def test_simultaneous_close_is_graceful_at_both_ends(ends: ProtocolPair) -> None:

    async def send_and_close(tunnel: Tunnel) -> None:
        await tunnel.send(b"x")

    async with ends.connected_caller(Handlers(ECHO.request, send_and_close)) as caller:
        for _ in range(50):
            async with caller.tunnel(ends.cluster) as tunnel:
                assert await tunnel.recv() == b"x"
        assert await caller.request(ends.cluster, b"well") == b"well"


async def test_closed_tunnel_rejects_sends_and_ends_reads(
    ends: ProtocolPair,
) -> None:
    async def send_and_close(tunnel: Tunnel) -> None:
        await tunnel.send(b"last")

    async with (
        ends.connected_caller(Handlers(tunnel=send_and_close)) as caller,
        caller.tunnel(ends.cluster) as tunnel,
    ):
        assert [message async for message in tunnel] == [b"last"]
        with pytest.raises(TUNNEL_ENDED):
            await tunnel.recv()
        with pytest.raises(TUNNEL_ENDED):
            await tunnel.send(b"x")


async def test_iris_end_gets_the_error_of_a_native_handler(nodes: tuple[Relay, Relay]) -> None:
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


async def test_iris_end_gets_the_error_of_a_native_caller(nodes: tuple[Relay, Relay]) -> None:
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


async def test_death_of_a_program_ends_the_tunnel_at_the_other_end(ends: ProtocolPair) -> None:
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


async def test_death_of_a_relay_ends_the_tunnel_at_the_other_end(relays: Relays) -> None:
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


async def test_unconfirmed_tunnel_times_out_and_a_late_confirmation_is_dropped(
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
