"""Iris programs that violate the protocol: disconnected, or their tunnel or packet is dropped."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Iterator
from contextlib import suppress

import pytest

import arke
from arke.wire.limits import MAX_TOPICS, MAX_TUNNELS
from support.iris_client import Handlers, iris_program
from support.iris_packets import Op, Packet, encoded
from support.iris_tunnel import CHUNK
from support.ports import free_port
from support.protocol_pairs import echo_request
from support.raw_iris import RawIris, hello, raw_iris, send_in_pieces
from support.relay_status import wait_for_members
from support.relays import Relay, Relays
from support.traffic import echo_service as native_echo
from support.waiting import LIMIT, wait_until_async

MIB = 1024 * 1024


# Violations that disconnect the program.

OVER_LIMIT = 16 * MIB + 1
LENGTH_OVER_LIMIT = b"\x81\x80\x80\x08"
assert encoded(Op.TUNNEL_ALLOWANCE, OVER_LIMIT, 0)[1:-1] == LENGTH_OVER_LIMIT
PROTOCOL_ERRORS = {
    "an unknown operation": b"\x0e",
    "the highest operation number": b"\xff",
    "a second handshake": hello(),
    "a refusal": b"\x01",
    "a bool of 2": b"\x05\x01\x02",
    "a bool of 255": b"\x05\x01\xff\x01x",
    "a varint of eleven bytes": b"\x0b" + b"\x80" * 10 + b"\x00",
    "a varint without an end": b"\x0b" + b"\xff" * 100,
    "a length of eleven bytes": b"\x06" + b"\x81" * 10 + b"\x00",
    "a body over the limit": b"\x08\x01t" + LENGTH_OVER_LIMIT,
    "a request over the limit": b"\x04\x01\x01t" + LENGTH_OVER_LIMIT,
    "a reply over the limit": b"\x05\x01\x01" + LENGTH_OVER_LIMIT,
    "a fault over the limit": b"\x05\x01\x00" + LENGTH_OVER_LIMIT,
    "a broadcast of 16 EiB": b"\x03\x01t" + b"\xff" * 9 + b"\x01",
    "a topic over the limit": b"\x06" + LENGTH_OVER_LIMIT,
    "a chunk over the limit": b"\x0c\x01\x01" + LENGTH_OVER_LIMIT,
    "a topic that is not UTF-8": b"\x06\x02\xff\xff",
    "a cluster that is not UTF-8": b"\x04\x01\x02\xc3\x28\x01x\x01",
    "a fault that is not UTF-8": b"\x05\x01\x00\x02\xff\xff",
    "a name of 256 bytes": encoded(Op.SUBSCRIBE, "ü" * 128),
}


@pytest.mark.parametrize("delivery", ["whole", "byte by byte", "with more bytes"])
@pytest.mark.parametrize("data", PROTOCOL_ERRORS.values(), ids=PROTOCOL_ERRORS)
async def test_protocol_error_disconnects_only_its_sender_with_a_reason(
    node: Relay, data: bytes, delivery: str
) -> None:
    log_start = node.process.written
    async with (
        iris_program(node.port, "other", Handlers(echo_request)) as other_program,
        raw_iris(node.port, "") as hostile,
    ):
        with suppress(ConnectionError):
            if delivery == "byte by byte":
                await send_in_pieces(hostile, data, 1)
            else:
                await hostile.send(
                    data + (bytes(100_000) if delivery == "with more bytes" else b"")
                )
        reason = await hostile.wait_until_closed()
        # A TCP reset may discard the reason, if the program still sends; the log always has it.
        assert reason or delivery != "whole"
        node.process.wait_for_line('program detached .*"protocol error: .+', LIMIT, after=log_start)
        assert await other_program.request("other", b"well") == b"well"


@pytest.mark.parametrize(
    "packet",
    [
        encoded(Op.REQUEST, 2**40, "other", b"body", 1000),
        encoded(Op.REPLY, 300, b"body"),
        encoded(Op.PUBLISH, "topic", b"body"),
        encoded(Op.TUNNEL_TRANSFER, 300, 300, b"body"),
    ],
    ids=["request", "reply", "publish", "transfer"],
)
async def test_end_of_file_inside_a_packet_closes_only_that_connection(
    node: Relay, packet: bytes
) -> None:
    async with iris_program(node.port, "other", Handlers(echo_request)) as other_program:
        for size in range(1, len(packet)):
            async with raw_iris(node.port, "") as raw:
                await raw.send(packet[:size])
                raw.writer.write_eof()
                await raw.wait_until_closed()
        assert await other_program.request("other", b"well") == b"well"


@pytest.mark.alone
async def test_announced_sizes_reserve_no_memory(node: Relay) -> None:
    """A hundred connections announce bodies just under the limit and send none of them."""
    announced = b"\x08\x01t" + encoded(Op.TUNNEL_ALLOWANCE, 16 * MIB, 0)[1:-1] + bytes(1000)
    before = node.memory
    connections = [
        RawIris(*await asyncio.open_connection("127.0.0.1", node.port)) for _ in range(100)
    ]
    for raw in connections:
        await raw.attach()
        await raw.send(announced)
    async with raw_iris(node.port, "") as other:
        await other.wait_until_processed()
    assert node.memory - before < 32 * MIB
    for raw in connections:
        raw.writer.transport.abort()


async def test_number_of_an_open_request_cannot_be_reused(node: Relay) -> None:
    async with raw_iris(node.port, "stuck") as member:
        for op, fields in {
            Op.REQUEST: (7, "stuck", b"x", 30_000),
            Op.TUNNEL_INIT: (7, "stuck", 30_000),
        }.items():
            async with raw_iris(node.port, "") as raw:
                await raw.send_packet(op, *fields)
                await member.receive_only(op)
                await raw.send_packet(op, *fields)
                assert await raw.wait_until_closed()


async def test_program_with_too_many_topics_is_disconnected(node: Relay) -> None:
    async with raw_iris(node.port, "") as raw:
        with suppress(ConnectionError):
            for number in range(MAX_TOPICS + 1):
                await raw.send_packet(Op.SUBSCRIBE, f"{number}")
        assert "topics" in (await raw.wait_until_closed() or "")


async def test_tunnel_over_the_limit_is_not_confirmed(node: Relay) -> None:
    async with raw_iris(node.port, "many") as member, raw_iris(node.port, "") as caller:
        await member.wait_until_processed()

        async def confirm() -> None:
            while True:
                op, build, *_ = await member.receive_without_limit()
                if op == Op.TUNNEL_INIT:
                    await member.send_packet(Op.TUNNEL_CONFIRM, build, build)

        confirming = asyncio.ensure_future(confirm())
        for number in range(MAX_TUNNELS):
            await caller.send_packet(Op.TUNNEL_INIT, number, "many", 30_000)
            assert await caller.receive() == (Op.TUNNEL_CONFIRM, number, CHUNK)
        await caller.send_packet(Op.TUNNEL_INIT, MAX_TUNNELS, "many", 30_000)
        assert await caller.receive() == (Op.TUNNEL_CONFIRM, MAX_TUNNELS, None)
        await caller.send_packet(Op.TUNNEL_CLOSE, 0)
        assert await caller.receive() == (Op.TUNNEL_CLOSE, 0, "")
        await caller.send_packet(Op.TUNNEL_INIT, MAX_TUNNELS, "many", 30_000)
        assert await caller.receive() == (Op.TUNNEL_CONFIRM, MAX_TUNNELS, CHUNK)
        confirming.cancel()


# Packets that are dropped and counted.


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Relay, int]]:
    """A relay, and the port of its metrics."""
    relays, port = Relays(tmp_path_factory.mktemp("relays")), free_port()
    try:
        yield relays.start("-metrics", f"127.0.0.1:{port}"), port
    finally:
        relays.stop()


def dropped_packets(port: int) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=LIMIT) as page:
        lines = page.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("arke_dropped_total"))


UNEXPECTED_PACKETS = {
    "a reply to no request": (Op.REPLY, 4711, b"x"),
    "a fault to no request": (Op.REPLY, 2**64 - 1, "x"),
    "a confirmation of no opening": (Op.TUNNEL_CONFIRM, 4711, 1),
    "an allowance for no tunnel": (Op.TUNNEL_ALLOWANCE, 4711, 1),
    "a transfer for no tunnel": (Op.TUNNEL_TRANSFER, 4711, 1, b"x"),
    "the end of no tunnel": (Op.TUNNEL_CLOSE, 4711),
}


@pytest.mark.parametrize("packet", UNEXPECTED_PACKETS.values(), ids=UNEXPECTED_PACKETS)
async def test_packet_without_its_request_or_tunnel_is_dropped_and_counted(
    counting: tuple[Relay, int], packet: Packet
) -> None:
    relay, metrics = counting
    before = dropped_packets(metrics)
    async with raw_iris(relay.port, "") as raw:
        for _ in range(3):
            await raw.send_packet(*packet)
        await raw.wait_until_processed()

        async def counted() -> bool:
            return await asyncio.to_thread(dropped_packets, metrics) >= before + 3

        await wait_until_async(counted)
        await raw.wait_until_processed()


# Violations that close the tunnel.

TRANSFERS: dict[str, list[Packet]] = {
    "beyond the allowance": [(Op.TUNNEL_TRANSFER, 1, CHUNK, bytes(CHUNK))] * 100,
    "more than its size": [(Op.TUNNEL_TRANSFER, 1, 2, b"xxx")],
    "more than its size in two": [
        (Op.TUNNEL_TRANSFER, 1, 3, b"xx"),
        (Op.TUNNEL_TRANSFER, 1, 0, b"xx"),
    ],
    "a chunk over the chunk limit": [(Op.TUNNEL_TRANSFER, 1, 2 * CHUNK, bytes(CHUNK + 1))],
    "a continued chunk without a message": [(Op.TUNNEL_TRANSFER, 1, 0, b"x")],
    "a size over every limit": [(Op.TUNNEL_TRANSFER, 1, 2**63, b"x")],
}


@pytest.mark.parametrize("transfers", TRANSFERS.values(), ids=TRANSFERS)
async def test_invalid_transfer_closes_only_its_tunnel(
    nodes: tuple[Relay, Relay], transfers: list[Packet]
) -> None:
    service = native_echo("misused", nodes[1].port)
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @service.on_tunnel
    async def wait(tunnel: arke.Tunnel) -> None:
        await resume.wait()
        try:
            async for _ in tunnel:
                pass
            ended.set_result("")
        except arke.TunnelClosed as error:
            ended.set_result(str(error))

    resume = asyncio.Event()
    async with (
        service,
        arke.connect(port=nodes[0].port) as observer,
        raw_iris(nodes[0].port, "") as raw,
    ):
        await wait_for_members(observer, "misused", 1)
        await raw.send_packet(Op.TUNNEL_INIT, 1, "misused", 30_000)
        assert await raw.receive_only(Op.TUNNEL_CONFIRM) == (Op.TUNNEL_CONFIRM, 1, CHUNK)
        await raw.send_packet(Op.TUNNEL_ALLOWANCE, 1, MIB)
        for transfer in transfers:
            await raw.send_packet(*transfer)
        _, number, reason = await raw.receive_only(Op.TUNNEL_CLOSE)
        assert number == 1
        assert reason
        resume.set()
        async with asyncio.timeout(LIMIT):
            assert await ended
        await raw.send_packet(Op.REQUEST, 2, "misused", b"well", 30_000)
        assert await raw.receive_only(Op.REPLY) == (Op.REPLY, 2, b"well")
