"""Admission: relays and clients outside the network are rejected, and logged once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import zmq

from arke_relay.errors import JoinRefused
from arke_relay.peers.batch_reader import MAX_FRAME
from arke_relay.peers.keys import CurvePair
from support.ports import free_port
from support.raw_peer import RawPeer
from support.relay_status import peer_states, wait_for_peers
from support.relays import Relay, Relays
from support.waiting import LIMIT, wait_until_async
from support.zmq_handshake import handshake_succeeds


@pytest.fixture
def keyholder(relays: Relays) -> Iterator[RawPeer]:
    made = RawPeer(relays.network, relays.key)
    yield made
    made.close()


class CountingForwarder:
    """Forward connections to a relay's join port and count them."""

    def __init__(self, relay: Relay) -> None:
        self.count = 0
        self.port = free_port()
        self._relay = relay
        self._pipes: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        try:
            yield
        finally:
            server.close()
            for pipe in self._pipes:
                pipe.cancel()
            await asyncio.gather(*self._pipes, return_exceptions=True)

    async def _accept(
        self, client_reader: asyncio.StreamReader, client_writer: asyncio.StreamWriter
    ) -> None:
        self.count += 1
        relay_reader, relay_writer = await asyncio.open_connection(
            self._relay.address, self._relay.peer_port
        )
        for reader, writer in ((client_reader, relay_writer), (relay_reader, client_writer)):
            pipe = asyncio.ensure_future(_pipe(reader, writer))
            self._pipes.add(pipe)
            pipe.add_done_callback(self._pipes.discard)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


def start_outsider(relays: Relays, kind: str, *flags: str, mdns: bool = False) -> Relay:
    """Start a relay with another key or another network name."""
    if kind == "another key":
        return relays.start(*flags, keys=[relays.new_key()], mdns=mdns)
    return relays.start(*flags, net=f"{relays.network}x", mdns=mdns)


@pytest.mark.parametrize("kind", ["another key", "another net"])
async def test_seed_of_another_network_rejects_the_relay_and_is_logged_once(
    relays: Relays, kind: str
) -> None:
    member = relays.start()
    forwarder = CountingForwarder(member)
    async with forwarder.open():
        outsider = start_outsider(relays, kind, "-join", f"127.0.0.1:{forwarder.port}")

        async def dialled_repeatedly() -> bool:
            assert await peer_states(member) == await peer_states(outsider) == []
            return forwarder.count >= 4

        await wait_until_async(dialled_repeatedly)
    lines = [line for line in outsider.process.log.splitlines() if str(forwarder.port) in line]
    assert len(lines) == 1
    assert "cannot reach peer" in lines[0]
    assert "reason=wrong_network_or_key" in lines[0]
    friend = relays.start(join=[member])
    await wait_for_peers(member, [friend])


@pytest.mark.parametrize("kind", ["another key", "another net"])
async def test_mdns_record_of_another_network_is_ignored_and_logged_once(
    relays: Relays, kind: str
) -> None:
    member = relays.start("-log-level", "debug", mdns=True)
    outsider = start_outsider(relays, kind, "-log-level", "debug", mdns=True)
    for relay in (member, outsider):
        relay.process.wait_for_line("mdns record ignored cause=another_network", LIMIT)
    friend = relays.start(mdns=True)
    await wait_for_peers(member, [friend])
    await wait_for_peers(friend, [member])
    assert await peer_states(outsider) == []
    assert member.process.log.count("cause=another_network") == 1


@pytest.mark.parametrize("mechanism", ["NULL", "PLAIN"])
async def test_clients_without_curve_encryption_fail_the_handshake(
    relays: Relays, keyholder: RawPeer, mechanism: str
) -> None:
    relay = relays.start()
    for kind in (zmq.DEALER, zmq.REQ, zmq.PUSH, zmq.PULL, zmq.SUB):
        for port in (relay.peer_port, relay.peer_port + 1):
            with keyholder.context.socket(kind) as sock:
                sock.linger = 0
                if mechanism == "PLAIN":
                    sock.plain_username = sock.plain_password = b"arke"
                assert not await handshake_succeeds(sock, f"tcp://{relay.address}:{port}")


async def test_handshake_fails_without_the_join_key(relays: Relays, keyholder: RawPeer) -> None:
    relay = relays.start()
    where = f"tcp://{relay.address}:{relay.peer_port}"
    guess = CurvePair.fresh(os.urandom)
    with keyholder.client(zmq.DEALER, keyholder.curve, guess.public, 8192) as sock:
        assert not await handshake_succeeds(sock, where)
    with keyholder.client(zmq.DEALER, keyholder.curve, keyholder.join_keys.public, 8192) as sock:
        assert await handshake_succeeds(sock, where)


async def test_join_key_without_the_rsa_key_is_not_admitted(relays: Relays) -> None:
    relay = relays.start()
    thief = RawPeer(relays.network, relays.new_key(), relays.key)
    try:
        for _ in range(3):
            with pytest.raises(JoinRefused, match="none of this relay's RSA keys"):
                await thief.join(relay)
    finally:
        thief.close()
    assert await peer_states(relay) == []
    assert relay.process.log.count("peer refused") == 1


async def test_data_socket_rejects_peers_that_are_not_admitted(
    relays: Relays, keyholder: RawPeer
) -> None:
    relay = relays.start()
    admitted = await keyholder.join(relay)
    where = f"tcp://{relay.address}:{admitted.info.data_port}"
    fresh = CurvePair.fresh(os.urandom)
    copied = CurvePair(keyholder.curve.public, fresh.secret)
    for keys, server_key in (
        (fresh, admitted.curve_key),
        (copied, admitted.curve_key),
        (keyholder.curve, fresh.public),
        (fresh, admitted.curve_key),
    ):
        with keyholder.client(zmq.PUSH, keys, server_key, MAX_FRAME) as sock:
            assert not await handshake_succeeds(sock, where)
    await keyholder.join(relay)  # admit it again: the relay drops a silent peer
    with keyholder.client(zmq.PUSH, keyholder.curve, admitted.curve_key, MAX_FRAME) as sock:
        assert await handshake_succeeds(sock, where)
    assert relay.process.log.count("connection rejected") == 1


async def test_relay_skips_its_own_address(relays: Relays) -> None:
    address = "127.84.84.84"
    relay = relays.start("-join", f"{address}:55556", "-log-level", "debug", address=address)
    relay.process.wait_for_line("own address skipped", LIMIT)
    assert await peer_states(relay) == []
    friend = relays.start(join=[relay])
    await wait_for_peers(relay, [friend])
