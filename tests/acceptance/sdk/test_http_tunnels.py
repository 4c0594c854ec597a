"""HTTP tunnels: a member connects to its HTTP server, only at the registered address."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

import arke
from arke.wire.messages import Op, Purpose
from support.connection import RESET_ON_CLOSE
from support.ports import free_port
from support.raw_program import raw_program
from support.relay_status import wait_for_members
from support.relays import Relay, Relays
from support.waiting import LIMIT

MIB = 1024 * 1024

Serve = Callable[[StreamReader, StreamWriter], Awaitable[None]]


@pytest.fixture
def nodes(relays: Relays) -> tuple[Relay, Relay]:
    """The relays of the opening program and of the service."""
    return relays.start_pair()


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[str]:
    """Run a TCP server during the block; yield its address."""

    async def until_served(reader: StreamReader, writer: StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await serve(reader, writer)
        writer.close()

    server = await asyncio.start_server(until_served, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def running(
    nodes: tuple[Relay, Relay], service: arke.Service
) -> AsyncIterator[tuple[arke.Mesh, str]]:
    """Run the service; yield a mesh that knows it, and the member's id."""
    async with service, arke.connect(port=nodes[0].port) as mesh, asyncio.timeout(2 * LIMIT):
        await wait_for_members(mesh, service.cluster, 1)
        (member,) = await mesh.members(service.cluster)
        yield mesh, member.id


async def echo(reader: StreamReader, writer: StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def silent(reader: StreamReader, writer: StreamWriter) -> None:
    await reader.read()


async def everything(tunnel: arke.Tunnel) -> bytes:
    return b"".join([data async for data in tunnel])


# Data.


async def test_http_tunnel_carries_bytes_and_half_closes(nodes: tuple[Relay, Relay]) -> None:
    async with serving(echo) as address:
        service = arke.Service("web", http=address, port=nodes[1].port)
        async with running(nodes, service) as (mesh, member):
            tunnel = await mesh.http_tunnel(member)
            for _ in range(3):
                await tunnel.send(b"GET")
                assert await tunnel.recv() == b"GET"
            await tunnel.send(b"last")
            tunnel.close_send()
            assert await everything(tunnel) == b"last"
            await tunnel.close()


async def test_http_tunnel_carries_much_data_both_ways(nodes: tuple[Relay, Relay]) -> None:
    async with serving(echo) as address:
        service = arke.Service("web", http=address, port=nodes[1].port)
        async with running(nodes, service) as (mesh, member):
            tunnel = await mesh.http_tunnel(member)
            sent = b"".join(number.to_bytes(4, "big") for number in range(5 * MIB))

            async def send() -> None:
                for at in range(0, len(sent), 65536):
                    await tunnel.send(sent[at : at + 65536])
                tunnel.close_send()

            got, _ = await asyncio.gather(everything(tunnel), send())
            assert got == sent


async def test_stalled_reader_stops_the_http_server(nodes: tuple[Relay, Relay]) -> None:
    written = 0
    stalled = asyncio.Event()

    async def pour(_: StreamReader, writer: StreamWriter) -> None:
        nonlocal written
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        while written < 64 * MIB:
            writer.write(bytes(65536))
            written += 65536
            draining = asyncio.ensure_future(writer.drain())
            if not (await asyncio.wait((draining,), timeout=1.0))[0]:
                stalled.set()
            await draining

    async with serving(pour) as address:
        service = arke.Service("web", http=address, port=nodes[1].port)
        async with running(nodes, service) as (mesh, member):
            tunnel = await mesh.http_tunnel(member)
            await stalled.wait()
            assert written < 8 * MIB
            assert len(await everything(tunnel)) == 64 * MIB
            await tunnel.close()


# Closing.


async def test_reset_by_the_http_server_aborts_the_tunnel(nodes: tuple[Relay, Relay]) -> None:
    async def reset(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.read(3)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        writer.transport.abort()

    async with serving(reset) as address:
        service = arke.Service("web", http=address, port=nodes[1].port)
        async with running(nodes, service) as (mesh, member):
            tunnel = await mesh.http_tunnel(member)
            await tunnel.send(b"GET")
            with pytest.raises(arke.TunnelClosed) as caught:
                await tunnel.recv()
            assert caught.value.type == "ConnectionResetError"


@pytest.mark.parametrize("orderly", [True, False])
async def test_closing_the_tunnel_closes_the_http_connection(
    nodes: tuple[Relay, Relay], orderly: bool
) -> None:
    ended = asyncio.Event()

    async def hold(reader: StreamReader, _: StreamWriter) -> None:
        try:
            await reader.read()
        finally:
            ended.set()

    async with serving(hold) as address:
        service = arke.Service("web", http=address, port=nodes[1].port)
        async with running(nodes, service) as (mesh, member):
            tunnel = await mesh.http_tunnel(member)
            await tunnel.send(b"GET")
            if orderly:
                await tunnel.close()
            else:
                tunnel.abort("no more")
            await ended.wait()


async def test_stopping_service_aborts_http_tunnels(nodes: tuple[Relay, Relay]) -> None:
    async with serving(silent) as address, arke.connect(port=nodes[0].port) as mesh:
        async with arke.Service("web", http=address, port=nodes[1].port, drain=0.1):
            await wait_for_members(mesh, "web", 1)
            (member,) = await mesh.members("web")
            tunnel = await mesh.http_tunnel(member.id)
        with pytest.raises(arke.TunnelClosed, match="the service stopped"):
            await tunnel.recv()


# Refusals.


async def test_unreachable_http_server_fails_the_opening(
    nodes: tuple[Relay, Relay],
) -> None:
    service = arke.Service("web", http=f"127.0.0.1:{free_port()}", port=nodes[1].port)
    async with running(nodes, service) as (mesh, member):
        with pytest.raises(arke.RemoteError) as caught:
            await mesh.http_tunnel(member)
        assert caught.value.type == "ConnectionRefusedError"


async def test_service_without_http_server_refuses_http_tunnels(
    nodes: tuple[Relay, Relay],
) -> None:
    service = arke.Service("web", port=nodes[1].port)
    handed = []

    @service.on_tunnel
    async def converse(tunnel: arke.Tunnel) -> None:
        handed.append(await tunnel.recv())

    async with running(nodes, service) as (mesh, member):
        with pytest.raises(arke.Overloaded, match="the service has no HTTP server"):
            await mesh.http_tunnel(member)
        async with mesh.tunnel("web") as tunnel:
            await tunnel.send(b"mine")
            tunnel.close_send()
            assert [message async for message in tunnel] == []
    assert handed == [b"mine"]


async def test_http_tunnels_are_bounded_by_the_limit(nodes: tuple[Relay, Relay]) -> None:
    async with serving(echo) as address:
        limits = arke.Limits(http=1)
        service = arke.Service("web", http=address, port=nodes[1].port, limits=limits)
        async with running(nodes, service) as (mesh, member):
            tunnel = await mesh.http_tunnel(member)
            with pytest.raises(arke.Overloaded, match="full"):
                await mesh.http_tunnel(member)
            tunnel.close_send()
            assert await everything(tunnel) == b""


async def test_opening_cannot_choose_the_http_address(nodes: tuple[Relay, Relay]) -> None:
    async def name(_: StreamReader, writer: StreamWriter) -> None:
        writer.write(b"the registered one")

    async def tempt(_: StreamReader, writer: StreamWriter) -> None:
        writer.write(b"another")

    async with serving(name) as address, serving(tempt) as other:
        service = arke.Service("web", http=address, port=nodes[1].port)
        async with (
            running(nodes, service) as (_, member),
            raw_program(nodes[0].port, "raw") as raw,
        ):
            purpose, size = Purpose.HTTP.value, 65536
            headers = {"http": other, "host": other, "address": other}
            fields = Op.OPEN.value, 1, other, other.encode(), 5000, member, purpose, size, size
            await raw.send_message((*fields, headers))
            await raw.receive_only(Op.ACCEPT)
            await raw.send_message((Op.CREDIT.value, 1, size))
            *_, data = await raw.receive_only(Op.DATA)
            assert data.endswith(b"the registered one")


# Metadata.


@pytest.mark.parametrize("text", [":8000", "0.0.0.0:8000", "[::]:8000"])
async def test_http_address_without_ip_follows_the_node(
    nodes: tuple[Relay, Relay], text: str
) -> None:
    service = arke.Service("web", http=text, metadata={"zone": "a"}, port=nodes[1].port)
    async with running(nodes, service) as (mesh, _):
        (member,) = await mesh.members("web")
        assert member.metadata == {"zone": "a", "http": ":8000"}
        with pytest.raises(arke.RemoteError, match=f"at {nodes[1].address} port 8000"):
            await mesh.http_tunnel(member.id)
