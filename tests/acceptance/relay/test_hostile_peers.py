"""Holders of the network's key that break the peer protocol: cut off, and nobody else feels it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest

import arke
from arke.wire.limits import CHUNK
from arke.wire.messages import Op, PeerOp
from arke_relay.peers.batch_reader import MAX_FRAME
from support.raw_peer import RawPeer, send
from support.relay_status import peer_states
from support.relays import Relay, Relays
from support.traffic import echo_service
from support.waiting import LIMIT

MESSAGES: dict[str, Any] = {
    "no message": 7,
    "a map": {"op": 40},
    "an empty message": [],
    "an operation of programs": [Op.REGISTER, "x"],
    "an unknown operation": [63, "x"],
    "a member without a name": [PeerOp.MEMBER_JOINED, "", 1, {}],
    "a member without a number": [PeerOp.MEMBER_JOINED, "x", "1", {}],
    "a member without metadata": [PeerOp.MEMBER_JOINED, "x", 1, None],
    "a topic that is none": [PeerOp.SUBSCRIBED, 7],
    "a relay at no port": [PeerOp.KNOWN_PEER, "node", "127.0.0.1", "http"],
    "a call without a body": [PeerOp.REQUEST, 1, "echo"],
    "a call with another's body": [PeerOp.REQUEST, 1, "echo", 99, 10**9, 1, None],
    "an event of bodies that are none": [PeerOp.PUBLISH, "t", ["x"], 1, None],
    "a chunk of nothing": [Op.CHUNK, 1, CHUNK, b""],
    "an end that is none": [PeerOp.DRAINING, None],
    "an answer to nothing that holds nothing": [Op.REPLY, {}, b""],
}
FRAMES = {
    "nothing": b"",
    "zeros": bytes(100),
    "noise": os.urandom(1000),
    "a full frame of noise": os.urandom(MAX_FRAME - 100),  # encryption needs some of it
    "no octet of MessagePack": b"\xc1",
    "a batch without its numbers": msgpack.packb([Op.PING, 1]),
    "a batch of other numbers": msgpack.packb(["1", 2.0, None]),
    "arrays in arrays": b"\x91" + b"\xdd\x00\x01\x00\x00" * 500,
}


@pytest.fixture(scope="module")
def relays_of_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relays]:
    made = Relays(tmp_path_factory.mktemp("relays"))
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def relay(relays_of_all: Relays) -> Relay:
    return relays_of_all.start()


@pytest.fixture
def hostile(relays_of_all: Relays) -> Iterator[RawPeer]:
    made = RawPeer(relays_of_all.network, relays_of_all.key)
    yield made
    made.close()


async def is_cut_off(relay: Relay, node: str) -> None:
    relay.process.wait_for_line(f"peer lost node={node} .*protocol_error: ", LIMIT)
    assert node not in {peer["id"] for peer in await peer_states(relay)}
    async with echo_service("echo", relay.port), arke.connect(port=relay.port) as mesh:
        assert await mesh.request("echo", b"well") == b"well"


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES.keys())
async def test_a_message_that_is_none_ends_the_link(
    relay: Relay, hostile: RawPeer, message: Any
) -> None:
    link = await hostile.link(relay)
    await link.send(message)
    await is_cut_off(relay, hostile.node)


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES.keys())
async def test_a_frame_that_is_none_ends_the_link(
    relay: Relay, hostile: RawPeer, frame: bytes
) -> None:
    link = await hostile.link(relay)
    await send(link.socket, frame)
    await is_cut_off(relay, hostile.node)


async def test_it_may_come_back_and_do_better(relay: Relay, hostile: RawPeer) -> None:
    link = await hostile.link(relay)
    await send(link.socket, b"\xc1")
    await is_cut_off(relay, hostile.node)
    again = relay.process.written
    await hostile.link(relay)
    relay.process.wait_for_line(f"peer linked node={hostile.node}", LIMIT, after=again)
