"""Tunnels between two programs through real relays, on one node and on two."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import arke
from support.relay_status import wait_for_members
from support.relays import Relay, Relays
from support.waiting import LIMIT

MIB = 1024 * 1024


@asynccontextmanager
async def running(nodes: tuple[Relay, Relay], service: arke.Service) -> AsyncIterator[arke.Mesh]:
    """Run the service; yield a mesh that knows it."""
    async with service, arke.connect(port=nodes[0].port) as mesh, asyncio.timeout(2 * LIMIT):
        await wait_for_members(mesh, service.cluster, 1)
        yield mesh


def echo_service(port: int, **limits: int) -> arke.Service:
    service = arke.Service("echo", port=port, limits=arke.Limits(**limits))

    @service.on_tunnel
    async def echo(tunnel: arke.Tunnel) -> None:
        async for message in tunnel:
            await tunnel.send(message)

    @service.on_request
    async def answer(request: arke.Request) -> bytes:
        return request.body

    return service


# Delivery.


@pytest.mark.parametrize("size", [0, 1, 5000, 65536, 65537, 5 * MIB, 20 * MIB])
async def test_messages_of_any_size_are_echoed(nodes: tuple[Relay, Relay], size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    async with (
        running(nodes, echo_service(nodes[1].port)) as mesh,
        mesh.tunnel("echo", timeout=LIMIT) as tunnel,
    ):
        for _ in range(3):
            await tunnel.send(body[:size])
            assert await tunnel.recv() == body[:size]


async def test_messages_both_ways_keep_their_order(nodes: tuple[Relay, Relay]) -> None:
    sizes = [10, 3000, 70_000, 1, 200_000]
    sent = [n.to_bytes(4, "big") + bytes(sizes[n % 5]) for n in range(500)]
    async with (
        running(nodes, echo_service(nodes[1].port)) as mesh,
        mesh.tunnel("echo", timeout=LIMIT) as tunnel,
    ):

        async def send() -> None:
            for message in sent:
                await tunnel.send(message)
            tunnel.close_send()

        sending = asyncio.ensure_future(send())
        assert [message async for message in tunnel] == sent
        await sending


async def test_concurrent_tunnels(nodes: tuple[Relay, Relay]) -> None:
    async def talk(mesh: arke.Mesh, number: int) -> None:
        async with mesh.tunnel("echo", timeout=LIMIT) as tunnel:
            for turn in range(10):
                message = f"{number} {turn}".encode() * 2000
                await tunnel.send(message)
                assert await tunnel.recv() == message

    async with running(nodes, echo_service(nodes[1].port)) as mesh:
        await asyncio.gather(*(talk(mesh, number) for number in range(100)))
        assert len(mesh.runtime.tunnels) == 0


# Flow control.


async def test_stalled_reader_stops_only_its_own_writer(
    nodes: tuple[Relay, Relay],
) -> None:
    service = arke.Service("echo", port=nodes[1].port)
    stalled, resume = asyncio.Event(), asyncio.Event()
    read = 0

    @service.on_request
    async def answer(request: arke.Request) -> bytes:
        return request.body

    @service.on_tunnel
    async def read_late(tunnel: arke.Tunnel) -> None:
        nonlocal read
        async for message in tunnel:
            if message == b"echo":
                await tunnel.send(message)
            elif not resume.is_set():
                stalled.set()
                await resume.wait()
            read += len(message)

    async with (
        running(nodes, service) as mesh,
        mesh.tunnel("echo", timeout=LIMIT) as slow,
        mesh.tunnel("echo", timeout=LIMIT) as quick,
    ):
        sent = 0

        async def pour() -> None:
            nonlocal sent
            for _ in range(300):
                await slow.send(bytes(100_000))
                sent += 100_000
            slow.close_send()

        pouring = asyncio.ensure_future(pour())
        await stalled.wait()
        for _ in range(50):
            await quick.send(b"echo")
            assert await quick.recv() == b"echo"
            assert await mesh.request("echo", b"well", timeout=LIMIT) == b"well"
        assert sent <= 4 * MIB + 100_000, "no more than the window is under way"
        resume.set()
        await pouring
        while read < 300 * 100_000:
            await asyncio.sleep(0.01)


# Closing.


async def test_half_closed_tunnel_carries_the_other_direction(nodes: tuple[Relay, Relay]) -> None:
    service = arke.Service("sum", port=nodes[1].port)

    @service.on_tunnel
    async def add_up(tunnel: arke.Tunnel) -> None:
        total = 0
        async for message in tunnel:
            total += int(message)
        await tunnel.send(str(total).encode())

    async with running(nodes, service) as mesh, mesh.tunnel("sum", timeout=LIMIT) as tunnel:
        for number in range(1000):
            await tunnel.send(str(number).encode())
        tunnel.close_send()
        assert await tunnel.recv() == b"499500"
        with pytest.raises(arke.TunnelClosed):
            await tunnel.recv()
        with pytest.raises(arke.TunnelClosed):
            await tunnel.send(b"more")


async def test_messages_sent_before_close_arrive(nodes: tuple[Relay, Relay]) -> None:
    service = arke.Service("sink", port=nodes[1].port)
    got: list[int] = []
    ended = asyncio.Event()

    @service.on_tunnel
    async def keep(tunnel: arke.Tunnel) -> None:
        got.extend([len(message) async for message in tunnel])
        ended.set()

    async with running(nodes, service) as mesh:
        async with mesh.tunnel("sink", timeout=LIMIT) as tunnel:
            for size in range(0, 500_000, 10_000):
                await tunnel.send(bytes(size))
        await ended.wait()
    assert got == list(range(0, 500_000, 10_000))


async def test_handler_exception_reaches_the_caller_as_tunnel_closed(
    nodes: tuple[Relay, Relay],
) -> None:
    service = arke.Service("broken", port=nodes[1].port)

    @service.on_tunnel
    async def fail(tunnel: arke.Tunnel) -> None:
        await tunnel.recv()
        raise LookupError("not here")

    async with running(nodes, service) as mesh, mesh.tunnel("broken", timeout=LIMIT) as tunnel:
        await tunnel.send(b"x")
        with pytest.raises(arke.TunnelClosed, match="LookupError: not here") as caught:
            await tunnel.recv()
        assert caught.value.type == "LookupError"


async def test_caller_exception_reaches_the_handler_as_tunnel_closed(
    nodes: tuple[Relay, Relay],
) -> None:
    service = arke.Service("patient", port=nodes[1].port)
    seen: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    @service.on_tunnel
    async def wait(tunnel: arke.Tunnel) -> None:
        try:
            await tunnel.recv()
        except arke.TunnelClosed as error:
            seen.set_result(error)
            raise

    async with running(nodes, service) as mesh:
        with pytest.raises(ZeroDivisionError):
            async with mesh.tunnel("patient", timeout=LIMIT):
                raise ZeroDivisionError("oh")
        assert str(await seen) == "ZeroDivisionError: oh"


@pytest.mark.parametrize("dies", ["service", "relay"])
async def test_loss_of_one_end_closes_the_other(relays: Relays, dies: str) -> None:
    one, other = relays.start_pair()
    service = echo_service(other.port)
    async with arke.connect(port=one.port) as mesh, asyncio.timeout(2 * LIMIT):
        await service.__aenter__()
        await wait_for_members(mesh, "echo", 1)
        async with (
            mesh.tunnel("echo", timeout=LIMIT) as reading,
            mesh.tunnel("echo", timeout=LIMIT) as writing,
        ):

            async def write_on() -> None:
                while True:
                    await writing.send(bytes(1000))

            waiting = [asyncio.ensure_future(work) for work in (reading.recv(), write_on())]
            await asyncio.sleep(0)
            if dies == "relay":
                other.process.kill()
            else:
                connection = service.mesh.runtime.attachment.connection
                assert connection
                connection.abort("as if killed")
            for each in waiting:
                with pytest.raises(arke.TunnelClosed, match=r"disconnected|lost"):
                    await each
        await service.__aexit__(None, None, None)


async def test_stopping_service_aborts_its_tunnels(nodes: tuple[Relay, Relay]) -> None:
    service = arke.Service("stuck", port=nodes[1].port, drain=0.2)

    @service.on_tunnel
    async def wait(_: arke.Tunnel) -> None:
        await asyncio.Event().wait()

    async with arke.connect(port=nodes[0].port) as mesh, asyncio.timeout(LIMIT):
        await service.__aenter__()
        await wait_for_members(mesh, "stuck", 1)
        async with mesh.tunnel("stuck", timeout=LIMIT) as tunnel:
            await service.__aexit__(None, None, None)
            with pytest.raises(arke.TunnelClosed, match="service stopped"):
                await tunnel.recv()


async def test_closing_the_mesh_closes_its_tunnels(nodes: tuple[Relay, Relay]) -> None:
    async with running(nodes, echo_service(nodes[1].port)) as mesh:
        async with arke.connect(port=nodes[0].port) as other:
            block = other.tunnel("echo", timeout=LIMIT)
            tunnel = await block.__aenter__()
        with pytest.raises(arke.TunnelClosed, match="mesh was closed"):
            await tunnel.recv()
        assert mesh.attached


# Openings that fail.


async def test_tunnel_opening_has_the_errors_of_request(nodes: tuple[Relay, Relay]) -> None:
    service = echo_service(nodes[1].port, tunnels=1)
    without_handlers = arke.Service("no-handlers", port=nodes[1].port)
    async with without_handlers, running(nodes, service) as mesh:
        with pytest.raises(arke.NoSuchCluster):
            await opening_fails(mesh, "unknown")
        await wait_for_members(mesh, "no-handlers", 1)
        with pytest.raises(arke.Overloaded, match="no handler"):
            await opening_fails(mesh, "no-handlers")
        with pytest.raises(arke.NoSuchMember):
            await opening_fails(mesh, "echo", member="unknown/1")
        async with mesh.tunnel("echo", timeout=LIMIT):
            with pytest.raises(arke.Overloaded, match="full"):
                await opening_fails(mesh, "echo")
        for bad in ({"window": 100}, {"max_message": 0}, {"timeout": -1}):
            with pytest.raises(ValueError, match=r"window|message|timeout"):
                await opening_fails(mesh, "echo", **bad)


async def opening_fails(mesh: arke.Mesh, cluster: str, **how: Any) -> None:
    async with mesh.tunnel(cluster, **{"timeout": LIMIT, **how}):
        raise AssertionError("it opened")


async def test_cancelled_opening_leaves_no_state(relays: Relays) -> None:
    relay = relays.start()
    service = echo_service(relay.port)
    async with running((relay, relay), service) as mesh:
        for turns in range(20):
            opening = asyncio.ensure_future(opening_fails(mesh, "echo"))
            for _ in range(turns):
                await asyncio.sleep(0)
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
        while len(mesh.runtime.tunnels) or len(service.mesh.runtime.tunnels):
            await asyncio.sleep(0.01)
        async with mesh.tunnel("echo", timeout=LIMIT) as tunnel:
            await tunnel.send(b"well")
            assert await tunnel.recv() == b"well"
        assert len(mesh.runtime.requests.pending) == 0


async def test_message_over_the_limit_raises_at_the_sender(
    nodes: tuple[Relay, Relay],
) -> None:
    service = echo_service(nodes[1].port, max_message=MIB)
    async with (
        running(nodes, service) as mesh,
        mesh.tunnel("echo", timeout=LIMIT, max_message=2000) as tunnel,
    ):
        with pytest.raises(arke.MessageTooLarge):
            await tunnel.send(bytes(MIB + 1))
        await tunnel.send(bytes(2000))
        assert await tunnel.recv() == bytes(2000)
        await tunnel.send(bytes(3000))
        with pytest.raises(arke.TunnelClosed, match="MessageTooLarge"):
            await tunnel.recv()
