"""The Iris protocol byte by byte, and with the smallest and largest values of each field."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

import arke
from support.iris_packets import Op, Packet, encoded
from support.iris_tunnel import CHUNK
from support.raw_iris import hello, raw_iris, send_in_pieces
from support.relay_status import wait_for_members
from support.relays import Relay
from support.traffic import echo_service as native_echo

MIB = 1024 * 1024
EDGES = [0, 127, 128, 2**32, 2**63, 2**64 - 1]
LONGEST_TIME = 2**64 - 1

# A session whose replies depend on nothing else.

EXCHANGES: list[tuple[Packet, Packet]] = [
    *(
        ((Op.REQUEST, number, "echo", b"x", 30_000), (Op.REPLY, number, b"x"))
        for number in [*EDGES, 10]
    ),
    ((Op.REQUEST, 1, "echo", b"", 30_000), (Op.REPLY, 1, b"")),
    ((Op.REQUEST, 2, "echo", bytes(200_000), 30_000), (Op.REPLY, 2, bytes(200_000))),
    ((Op.REQUEST, 3, "echo", b"late", 0), (Op.REPLY, 3, None)),
    ((Op.REQUEST, 4, "echo", b"x", LONGEST_TIME), (Op.REPLY, 4, b"x")),
    ((Op.REQUEST, 5, "unknown", b"x", 30_000), (Op.REPLY, 5, None)),
    ((Op.TUNNEL_INIT, 6, "unknown", 30_000), (Op.TUNNEL_CONFIRM, 6, None)),
    ((Op.PUBLISH, "t", b"1"), (Op.PUBLISH, "t", b"1")),
    ((Op.PUBLISH, "t", b""), (Op.PUBLISH, "t", b"")),
    ((Op.PUBLISH, "t", bytes(70_000)), (Op.PUBLISH, "t", bytes(70_000))),
    ((Op.BROADCAST, "session", b"1"), (Op.BROADCAST, b"1")),
    ((Op.BROADCAST, "session", b""), (Op.BROADCAST, b"")),
]
SESSION = b"".join(
    [
        hello("session"),
        encoded(Op.SUBSCRIBE, "t"),
        *(encoded(*packet) for packet, _ in EXCHANGES),
        encoded(Op.UNSUBSCRIBE, "t"),
    ]
)


@pytest.mark.parametrize("piece", [len(SESSION), 1, 7, 4096])
async def test_session_works_in_fragments_of_any_size(node: Relay, piece: int) -> None:
    async with (
        native_echo("echo", node.port),
        arke.connect(port=node.port) as observer,
        raw_iris(node.port) as raw,
    ):
        await wait_for_members(observer, "echo", 1)
        sending = asyncio.ensure_future(send_in_pieces(raw, SESSION, piece))
        received = [await raw.receive() for _ in range(1 + len(EXCHANGES))]
        await sending
        await raw.send_packet(Op.CLOSE)
        assert await raw.receive() == (Op.CLOSE, "")
    assert received[0][0] == Op.INIT
    for op in (Op.PUBLISH, Op.BROADCAST):
        expected = [answer for _, answer in EXCHANGES if answer[0] == op]
        assert [packet for packet in received if packet[0] == op] == expected
    for op in (Op.REPLY, Op.TUNNEL_CONFIRM):
        expected = [answer for _, answer in EXCHANGES if answer[0] == op]
        assert by_number(packet for packet in received if packet[0] == op) == by_number(expected)


def by_number(packets: object) -> list[Packet]:
    assert isinstance(packets, (list, Iterator))
    return sorted(packets, key=lambda packet: packet[1])


async def test_varint_may_have_ten_bytes(node: Relay) -> None:
    padded = b"\x81" + b"\x80" * 8 + b"\x00"
    async with raw_iris(node.port, "") as raw:
        await raw.send(b"\x04" + padded + encoded(Op.REQUEST, 0, "unknown", b"x", 1)[2:])
        assert await raw.receive() == (Op.REPLY, 1, None)


@pytest.mark.parametrize("number", EDGES)
async def test_tunnel_numbers_are_local_to_their_program(node: Relay, number: int) -> None:
    """Both ends of one tunnel use the same number."""
    async with raw_iris(node.port, "edge") as member, raw_iris(node.port, "") as caller:
        await member.wait_until_processed()
        await caller.send_packet(Op.TUNNEL_INIT, number, "edge", 30_000)
        _, build, _ = await member.receive()
        await member.send_packet(Op.TUNNEL_CONFIRM, build, number)
        assert await caller.receive() == (Op.TUNNEL_CONFIRM, number, CHUNK)
        for end in (caller, member):
            await end.send_packet(Op.TUNNEL_ALLOWANCE, number, 2**63)
        for end in (caller, member):
            op, allowed_for, data = await end.receive()
            assert (op, allowed_for) == (Op.TUNNEL_ALLOWANCE, number)
            assert data >= CHUNK
        for end, other in ((caller, member), (member, caller)):
            await end.send_packet(Op.TUNNEL_TRANSFER, number, 2, b"hi")
            assert await other.receive() == (Op.TUNNEL_TRANSFER, number, 2, b"hi")
        await caller.send_packet(Op.TUNNEL_CLOSE, number)
        for end in (caller, member):
            assert await end.receive() == (Op.TUNNEL_CLOSE, number, "")


async def test_subscribing_twice_or_unsubscribing_an_unknown_topic_is_no_error(
    node: Relay,
) -> None:
    async with raw_iris(node.port, "") as raw:
        for _ in range(2):
            await raw.send_packet(Op.SUBSCRIBE, "twice")
        await raw.send_packet(Op.UNSUBSCRIBE, "never")
        await raw.send_packet(Op.PUBLISH, "twice", b"1")
        await raw.send_packet(Op.PUBLISH, "twice", b"2")
        assert await raw.receive() == (Op.PUBLISH, "twice", b"1")
        assert await raw.receive() == (Op.PUBLISH, "twice", b"2")
