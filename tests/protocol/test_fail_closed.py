"""A guarded socket admits nobody but whom a running gate knows, whatever happens in which order."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from itertools import permutations

import pytest
import zmq

from arke_relay.peers.batch_reader import MAX_FRAME
from arke_relay.peers.keys import CurvePair
from arke_relay.peers.zap_handler import ZapHandler
from arke_relay.peers.zmq_sockets import DATA_DOMAIN, JOIN_DOMAIN, curve_client, curve_server
from support.waiting import LIMIT
from support.zmq_handshake import handshake_succeeds

Socket = zmq.Socket[bytes]
ADDRESS = "tcp://127.85.85.85"


class Scene:
    """A data socket, a peer that is admitted, and a stranger who knows the socket's key."""

    def __init__(self) -> None:
        self.context: zmq.Context[Socket] = zmq.Context()
        self.keys = CurvePair.fresh(os.urandom)
        self.peer = CurvePair.fresh(os.urandom)
        self.stranger = CurvePair.fresh(os.urandom)
        self.guarded = curve_server(self.context, zmq.PULL, self.keys, DATA_DOMAIN, MAX_FRAME)
        self.refused: list[str] = []
        self.gate: ZapHandler | None = None
        self.clients: list[Socket] = []
        with zmq.Context() as context, context.socket(zmq.PULL) as probe:
            self.port = probe.bind_to_random_port(ADDRESS)
        self.where = f"{ADDRESS}:{self.port}"

    def bind(self) -> None:
        self.guarded.bind(self.where)

    def open_gate(self, admitted: Callable[[bytes], str | None] | None = None) -> None:
        known = {self.peer.public: "peer"}
        loop = asyncio.get_running_loop()
        self.gate = ZapHandler(loop, self.context, admitted or known.get, self.refused.append)

    def client(self, keys: CurvePair) -> Socket:
        made = curve_client(self.context, zmq.PUSH, keys, self.keys.public, MAX_FRAME)
        self.clients.append(made)
        return made

    def stubborn_stranger(self) -> None:
        """One that connects again and again, with something to say."""
        sock = self.client(self.stranger)
        sock.setsockopt(zmq.RECONNECT_IVL, 10)
        sock.setsockopt(zmq.IMMEDIATE, 0)
        sock.connect(self.where)
        sock.send(b"stranger", zmq.NOBLOCK)

    async def message(self) -> zmq.Frame:
        async with asyncio.timeout(LIMIT):
            while True:
                try:
                    return self.guarded.recv(zmq.NOBLOCK, copy=False)
                except zmq.Again:
                    await asyncio.sleep(0.005)

    def close(self) -> None:
        if self.gate is not None:
            self.gate.close()
        self.context.destroy(linger=0)


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.close()


@pytest.mark.parametrize("order", list(permutations(["gate", "bind", "stranger"])), ids="-".join)
async def test_in_no_order_does_a_stranger_get_in(scene: Scene, order: tuple[str, ...]) -> None:
    steps = {"gate": scene.open_gate, "bind": scene.bind, "stranger": scene.stubborn_stranger}
    for step in order:
        steps[step]()
        await asyncio.sleep(0)
    friend = scene.client(scene.peer)
    assert await handshake_succeeds(friend, scene.where)
    async with asyncio.timeout(LIMIT):
        while not scene.refused:  # the stranger came again, and the gate was asked about it
            await asyncio.sleep(0.005)
    friend.send(b"friend", zmq.NOBLOCK)
    heard = await scene.message()
    assert (heard.bytes, heard.get("User-Id")) == (b"friend", scene.peer.public.hex())
    assert not scene.guarded.poll(0)


@pytest.mark.parametrize("domain", [DATA_DOMAIN, JOIN_DOMAIN])
async def test_without_a_gate_nobody_gets_in(scene: Scene, domain: bytes) -> None:
    scene.guarded.zap_domain = domain
    scene.bind()
    for keys in (scene.peer, scene.stranger):
        assert not await handshake_succeeds(scene.client(keys), scene.where)


async def test_a_gate_that_comes_late_admits_only_from_then_on(scene: Scene) -> None:
    scene.bind()
    assert not await handshake_succeeds(scene.client(scene.peer), scene.where)
    scene.open_gate()
    assert await handshake_succeeds(scene.client(scene.peer), scene.where)
    assert not await handshake_succeeds(scene.client(scene.stranger), scene.where)


async def test_when_the_gate_is_gone_nobody_gets_in(scene: Scene) -> None:
    scene.open_gate()
    scene.bind()
    assert await handshake_succeeds(scene.client(scene.peer), scene.where)
    assert scene.gate is not None
    scene.gate.close()
    assert not await handshake_succeeds(scene.client(scene.peer), scene.where)


async def test_a_gate_that_breaks_admits_nobody_and_goes_on(scene: Scene) -> None:
    errors: list[BaseException] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))

    def admitted(key: bytes) -> str | None:
        if key != scene.peer.public:
            raise LookupError("a fault of ours")
        return "peer"

    scene.open_gate(admitted)
    scene.bind()
    outcomes = await asyncio.gather(
        handshake_succeeds(scene.client(scene.stranger), scene.where),
        handshake_succeeds(scene.client(scene.stranger), scene.where),
        handshake_succeeds(scene.client(scene.peer), scene.where),
    )
    assert outcomes == [False, False, True]
    assert [str(error) for error in errors] == ["a fault of ours"] * 2


async def test_an_unguarded_socket_would_let_anybody_in(scene: Scene) -> None:
    """What all of this is for, and that these tests would see it."""
    with scene.context.socket(zmq.PULL) as bare:
        bare.linger = 0
        bare.curve_server = 1
        bare.curve_secretkey = scene.keys.secret
        bare.zap_domain = DATA_DOMAIN  # not enforced
        bare.bind(scene.where)
        assert await handshake_succeeds(scene.client(scene.stranger), scene.where)
