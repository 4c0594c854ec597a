"""A CURVE socket admits only keys that a running ZAP handler knows, in any order of events."""

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


class DataSocket:
    """A data socket, an admitted peer, and an attacker that knows the socket's public key."""

    def __init__(self) -> None:
        self.context: zmq.Context[Socket] = zmq.Context()
        self.keys = CurvePair.fresh(os.urandom)
        self.peer = CurvePair.fresh(os.urandom)
        self.attacker = CurvePair.fresh(os.urandom)
        self.guarded = curve_server(self.context, zmq.PULL, self.keys, DATA_DOMAIN, MAX_FRAME)
        self.refused: list[str] = []
        self.handler: ZapHandler | None = None
        self.clients: list[Socket] = []
        with zmq.Context() as context, context.socket(zmq.PULL) as probe:
            self.port = probe.bind_to_random_port(ADDRESS)
        self.where = f"{ADDRESS}:{self.port}"

    def bind(self) -> None:
        self.guarded.bind(self.where)

    def start_handler(self, admitted: Callable[[bytes], str | None] | None = None) -> None:
        known = {self.peer.public: "peer"}
        loop = asyncio.get_running_loop()
        self.handler = ZapHandler(loop, self.context, admitted or known.get, self.refused.append)

    def client(self, keys: CurvePair) -> Socket:
        made = curve_client(self.context, zmq.PUSH, keys, self.keys.public, MAX_FRAME)
        self.clients.append(made)
        return made

    def connect_attacker(self) -> None:
        """Connect an attacker that retries all the time and has a message to send."""
        sock = self.client(self.attacker)
        sock.setsockopt(zmq.RECONNECT_IVL, 10)
        sock.setsockopt(zmq.IMMEDIATE, 0)
        sock.connect(self.where)
        sock.send(b"attack", zmq.NOBLOCK)

    async def message(self) -> zmq.Frame:
        async with asyncio.timeout(LIMIT):
            while True:
                try:
                    return self.guarded.recv(zmq.NOBLOCK, copy=False)
                except zmq.Again:
                    await asyncio.sleep(0.005)

    def close(self) -> None:
        if self.handler is not None:
            self.handler.close()
        self.context.destroy(linger=0)


@pytest.fixture
def server() -> Iterator[DataSocket]:
    made = DataSocket()
    yield made
    made.close()


@pytest.mark.parametrize("order", list(permutations(["handler", "bind", "attacker"])), ids="-".join)
async def test_unknown_key_is_rejected_in_any_order_of_start(
    server: DataSocket, order: tuple[str, ...]
) -> None:
    steps = {
        "handler": server.start_handler,
        "bind": server.bind,
        "attacker": server.connect_attacker,
    }
    for step in order:
        steps[step]()
        await asyncio.sleep(0)
    peer = server.client(server.peer)
    assert await handshake_succeeds(peer, server.where)
    async with asyncio.timeout(LIMIT):
        while not server.refused:  # until the attacker has retried and the handler has refused it
            await asyncio.sleep(0.005)
    peer.send(b"hello", zmq.NOBLOCK)
    received = await server.message()
    assert (received.bytes, received.get("User-Id")) == (b"hello", server.peer.public.hex())
    assert not server.guarded.poll(0)


@pytest.mark.parametrize("domain", [DATA_DOMAIN, JOIN_DOMAIN])
async def test_socket_without_a_zap_handler_rejects_all_keys(
    server: DataSocket, domain: bytes
) -> None:
    server.guarded.zap_domain = domain
    server.bind()
    for keys in (server.peer, server.attacker):
        assert not await handshake_succeeds(server.client(keys), server.where)


async def test_zap_handler_that_starts_late_admits_only_from_then_on(server: DataSocket) -> None:
    server.bind()
    assert not await handshake_succeeds(server.client(server.peer), server.where)
    server.start_handler()
    assert await handshake_succeeds(server.client(server.peer), server.where)
    assert not await handshake_succeeds(server.client(server.attacker), server.where)


async def test_socket_with_a_closed_zap_handler_rejects_all_keys(server: DataSocket) -> None:
    server.start_handler()
    server.bind()
    assert await handshake_succeeds(server.client(server.peer), server.where)
    assert server.handler is not None
    server.handler.close()
    assert not await handshake_succeeds(server.client(server.peer), server.where)


async def test_exception_in_the_zap_handler_rejects_the_key_and_nothing_else(
    server: DataSocket,
) -> None:
    errors: list[BaseException] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))

    def admitted(key: bytes) -> str | None:
        if key != server.peer.public:
            raise LookupError("handler error")
        return "peer"

    server.start_handler(admitted)
    server.bind()
    outcomes = await asyncio.gather(
        handshake_succeeds(server.client(server.attacker), server.where),
        handshake_succeeds(server.client(server.attacker), server.where),
        handshake_succeeds(server.client(server.peer), server.where),
    )
    assert outcomes == [False, False, True]
    assert [str(error) for error in errors] == ["handler error"] * 2


async def test_socket_that_does_not_enforce_zap_admits_an_unknown_key(server: DataSocket) -> None:
    """This shows that the tests above can fail."""
    with server.context.socket(zmq.PULL) as bare:
        bare.linger = 0
        bare.curve_server = 1
        bare.curve_secretkey = server.keys.secret
        bare.zap_domain = DATA_DOMAIN  # not enforced
        bare.bind(server.where)
        assert await handshake_succeeds(server.client(server.attacker), server.where)
