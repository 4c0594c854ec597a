"""Peers that hold the network's key but violate the peer protocol are disconnected."""

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
    "a number": 7,
    "a map": {"op": 40},
    "an empty message": [],
    "an operation of programs": [Op.REGISTER, "x"],
    "an unknown operation": [63, "x"],
    "a member without a name": [PeerOp.MEMBER_JOINED, "", 1, {}],
    "a member without a number": [PeerOp.MEMBER_JOINED, "x", "1", {}],
    "a member without metadata": [PeerOp.MEMBER_JOINED, "x", 1, None],
    "a topic that is not text": [PeerOp.SUBSCRIBED, 7],
    "a relay with an invalid port": [PeerOp.KNOWN_PEER, "node", "127.0.0.1", "http"],
    "a request without a body": [PeerOp.REQUEST, 1, "echo"],
    "a request whose body is a stream that was not sent": [
        PeerOp.REQUEST,
        1,
        "echo",
        99,
        10**9,
        1,
        None,
    ],
    "an event with an invalid body": [PeerOp.PUBLISH, "t", ["x"], 1, None],
    "an empty chunk": [Op.CHUNK, 1, CHUNK, b""],
    "a drain message with an invalid field": [PeerOp.DRAINING, None],
    "an empty reply to an invalid request number": [Op.REPLY, {}, b""],
}
FRAMES = {
    "empty": b"",
    "zeros": bytes(100),
    "noise": os.urandom(1000),
    "a full frame of noise": os.urandom(MAX_FRAME - 100),  # the rest is encryption overhead
    "the reserved MessagePack byte": b"\xc1",
    "a batch without its header": msgpack.packb([Op.PING, 1]),
    "a batch with an invalid header": msgpack.packb(["1", 2.0, None]),
    "arrays in arrays": b"\x91" + b"\xdd\x00\x01\x00\x00" * 500,
}


@pytest.fixture(scope="module")
def module_relays(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relays]:
    made = Relays(tmp_path_factory.mktemp("relays"))
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def relay(module_relays: Relays) -> Relay:
    return module_relays.start()


@pytest.fixture
def hostile(module_relays: Relays) -> Iterator[RawPeer]:
    made = RawPeer(module_relays.network, module_relays.key)
    yield made
    made.close()


async def assert_disconnected(relay: Relay, node: str) -> None:
    relay.process.wait_for_line(f"peer lost node={node} .*reason=protocol_error detail=", LIMIT)
    assert node not in {peer["id"] for peer in await peer_states(relay)}
    async with echo_service("echo", relay.port), arke.connect(port=relay.port) as mesh:
        assert await mesh.request("echo", b"well") == b"well"


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES.keys())
async def test_invalid_message_closes_the_link(
    relay: Relay, hostile: RawPeer, message: Any
) -> None:
    link = await hostile.link(relay)
    await link.send(message)
    await assert_disconnected(relay, hostile.node)


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES.keys())
async def test_invalid_frame_closes_the_link(relay: Relay, hostile: RawPeer, frame: bytes) -> None:
    link = await hostile.link(relay)
    await send(link.socket, frame)
    await assert_disconnected(relay, hostile.node)


async def test_disconnected_peer_may_link_again(relay: Relay, hostile: RawPeer) -> None:
    link = await hostile.link(relay)
    await send(link.socket, b"\xc1")
    await assert_disconnected(relay, hostile.node)
    before_relink = relay.process.written
    await hostile.link(relay)
    relay.process.wait_for_line(f"peer linked node={hostile.node}", LIMIT, after=before_relink)
