"""The handshake of Iris programs, and handshakes that the relay refuses."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

import arke
from support.iris_client import Handlers, iris_program
from support.iris_packets import CLIENT_MAGIC, RELAY_MAGIC, VERSION, Op, encoded
from support.protocol_pairs import echo_request
from support.raw_iris import RawIris, hello, raw_iris
from support.relay_status import wait_for_members
from support.relays import Relay

REFUSALS = {
    "another version": (
        hello(version="v2"),
        "Unsupported protocol. Client: v2. Iris: v1.0-draft2.",
    ),
    "a version with more": (
        hello(version="v1.0-draft2.1"),
        "Unsupported protocol. Client: v1.0-draft2.1. Iris: v1.0-draft2.",
    ),
    "no version": (hello(version=""), "Unsupported protocol. Client: . Iris: v1.0-draft2."),
    "another magic": (hello(magic="iris-klient-magic"), None),
    "no magic": (hello(magic=""), None),
    "the relay's magic": (hello(magic=RELAY_MAGIC), None),
    "a name of 256 bytes": (hello("ü" * 128), None),
    "a very long name": (hello("x" * 3000), None),
}

START = hello()[:-1]  # all but the cluster's name
MALFORMED = {
    "a name that is not UTF-8": START + b"\x02\xff\xff",
    "a length of eleven bytes": b"\x00" + b"\x80" * 10 + b"\x01",
    "a magic of 16 EiB": b"\x00" + b"\xff" * 9 + b"\x01",
    "a magic of 16 MiB": b"\x00\x80\x80\x80\x08" + bytes(1000),
    "a name of 16 MiB": START + b"\x80\x80\x80\x08",
    "another first byte": b"\x01" + hello()[1:],
    "a packet before the handshake": encoded(Op.SUBSCRIBE, "t"),
}


async def send(raw: RawIris, data: bytes, delivery: str) -> None:
    """Send the data at once, or byte by byte."""
    with suppress(ConnectionError):
        if delivery == "whole":
            await raw.send(data)
        for byte in data if delivery == "byte by byte" else b"":
            await raw.send(bytes([byte]))
            await asyncio.sleep(0)


both_ways = pytest.mark.parametrize("delivery", ["whole", "byte by byte"])


@both_ways
@pytest.mark.parametrize("cluster", ["", "c", "ü" * 127 + "x"])
async def test_client_and_service_attach(node: Relay, cluster: str, delivery: str) -> None:
    first_packets = encoded(Op.SUBSCRIBE, "t") + encoded(Op.PUBLISH, "t", b"x")
    async with raw_iris(node.port) as raw, arke.connect(port=node.port) as observer:
        await send(raw, hello(cluster) + first_packets, delivery)
        assert await raw.receive() == (Op.INIT, RELAY_MAGIC, VERSION)
        assert await raw.receive() == (Op.PUBLISH, "t", b"x")
        if cluster:
            await wait_for_members(observer, cluster, 1)
        await raw.send_packet(Op.CLOSE)
        assert await raw.receive() == (Op.CLOSE, "")
        with pytest.raises(EOFError):
            await raw.receive()
        if cluster:
            await wait_for_members(observer, cluster, 0)


@both_ways
@pytest.mark.parametrize(("data", "reason"), REFUSALS.values(), ids=REFUSALS)
async def test_unsupported_handshake_is_refused_with_a_reason(
    node: Relay, data: bytes, reason: str | None, delivery: str
) -> None:
    async with raw_iris(node.port) as raw:
        await send(raw, data, delivery)
        op, magic, text = await raw.receive()
        assert (op, magic) == (Op.DENY, RELAY_MAGIC)
        assert text == reason if reason else text
        with pytest.raises((EOFError, ConnectionError)):
            await raw.receive()


@both_ways
@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
async def test_malformed_handshake_is_disconnected(node: Relay, data: bytes, delivery: str) -> None:
    """The relay disconnects before the announced bytes have arrived."""
    async with raw_iris(node.port) as raw:
        await send(raw, data, delivery)
        with suppress(EOFError, ConnectionError):
            op, magic, text = await raw.receive()
            assert (op, magic) == (Op.DENY, RELAY_MAGIC)
            assert text
        with pytest.raises((EOFError, ConnectionError)):
            await raw.receive()


@pytest.mark.parametrize("data", [b"\x00", b"\x00\x11iris", hello()[:-1]], ids=range(3))
async def test_incomplete_handshake_times_out_and_delays_no_other_program(
    node: Relay, data: bytes
) -> None:
    async with (
        raw_iris(node.port) as silent,
        iris_program(node.port, "patient", Handlers(echo_request)) as member,
    ):
        await silent.send(data)
        closed = asyncio.ensure_future(silent.wait_until_closed())
        async with arke.connect(port=node.port) as native:
            while not closed.done():
                assert await member.request("patient", b"x") == b"x"
                assert await native.request("patient", b"x") == b"x"
                async with iris_program(node.port) as another:
                    assert await another.request("patient", b"x") == b"x"
        await closed


async def test_end_of_file_inside_the_handshake_leaves_no_member(node: Relay) -> None:
    whole = hello("half")
    for size in range(1, len(whole)):
        async with raw_iris(node.port) as raw:
            await raw.send(whole[:size])
            raw.writer.write_eof()
            assert await raw.wait_until_closed() is None
    async with arke.connect(port=node.port) as observer:
        await wait_for_members(observer, "half", 0)
        assert (await observer.status())["programs"] == 1


def test_handshake_matches_the_specification() -> None:
    assert hello("c") == b"\x00\x11" + CLIENT_MAGIC.encode() + b"\x0bv1.0-draft2\x01c"
