"""A peer for hostile tests: it holds the network's key, and can violate the protocols.

No socket listens at its join port, so that relays cannot renew its admission.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import msgpack
import zmq

from arke.wire.messages import PeerOp
from arke_relay.peers.batch_reader import MAX_FRAME
from arke_relay.peers.join_handshake import AdmittedPeer, Initiator, NodeIdentity
from arke_relay.peers.join_messages import MAX_MESSAGE_BYTES
from arke_relay.peers.keyfile import load_key
from arke_relay.peers.keys import CurvePair
from arke_relay.peers.node_info import NodeInfo
from arke_relay.peers.zmq_sockets import curve_client, endpoint
from support.ports import free_port
from support.relays import Relay
from support.waiting import LIMIT

Socket = zmq.Socket[bytes]


class RawPeer:
    """A simulated node. Relays admit it for `lifetime` seconds.

    The first key signs the node's certificate, as with a relay's `-rsa`. The CURVE key of the join
    socket to dial is derived from the last key.
    """

    def __init__(
        self, network: str, *keys: Path, address: str = "127.83.83.83", lifetime: int = 3600
    ) -> None:
        network_keys = [load_key(key) for key in keys]
        self.node = os.urandom(8).hex()
        self.curve = CurvePair.fresh(os.urandom)
        self.join_keys = CurvePair.from_secret(network_keys[-1].join_secret(network))
        self.context: zmq.Context[Socket] = zmq.Context()
        self.incoming = self.context.socket(zmq.PULL)
        """The socket to which a relay that admitted this node sends its batches."""
        self.incoming.curve_server = 1
        self.incoming.curve_secretkey = self.curve.secret
        self._data_port = self.incoming.bind_to_random_port(f"tcp://{address}")
        self._address = address
        self._clients: list[Socket] = []
        self._sessions = 0
        self._identity = NodeIdentity(network, self.node, self.curve.public, network_keys, lifetime)

    def close(self) -> None:
        self.context.destroy(linger=0)

    async def join(self, relay: Relay) -> AdmittedPeer:
        """Join a relay. Raises JoinRefused."""
        introduction = NodeInfo(free_port(), self._data_port, relay.address, "0.0.0", 1 << 24)
        initiator = Initiator(self._identity, introduction, os.urandom, time.monotonic())
        with self.client(zmq.DEALER, self.curve, self.join_keys.public, MAX_MESSAGE_BYTES) as sock:
            sock.connect(endpoint(relay.address, relay.peer_port, self._address))
            await send(sock, initiator.hello())
            while True:
                step = initiator.receive(await receive(sock), time.monotonic())
                if step.admitted is not None:
                    return step.admitted
                assert step.send is not None
                await send(sock, step.send)

    def dial(self, relay: Relay, admitted: AdmittedPeer, keys: CurvePair) -> Socket:
        """Connect to the data socket of a relay that admitted this node, with these CURVE keys."""
        sock = self.client(zmq.PUSH, keys, admitted.curve_key, MAX_FRAME)
        port = admitted.info.data_port
        sock.connect(endpoint(relay.address, port, self._address))
        return sock

    async def link(self, relay: Relay) -> RawPeerLink:
        """Join and link in both directions. Each call opens a new session."""
        admitted = await self.join(relay)
        socket = self.dial(relay, admitted, self.curve)
        (session, _, _), *_ = unpack_batch(await receive(self.incoming))
        self._sessions += 1
        link = RawPeerLink(socket, self._sessions, session)
        await link.send((PeerOp.SYNCED.value,))
        return link

    def client(self, kind: int, keys: CurvePair, server_key: bytes, largest: int) -> Socket:
        made = curve_client(self.context, kind, keys, server_key, largest)
        self._clients.append(made)  # so that `close` closes it
        return made


class RawPeerLink:
    """This node's direction of a link, one session."""

    def __init__(self, socket: Socket, session: int, acknowledged: int) -> None:
        self.socket = socket
        self._session = session
        self._acknowledged_session = acknowledged

    async def send(self, *messages: Any) -> None:
        """Send one batch."""
        header = (self._session, int(time.monotonic() * 1000), self._acknowledged_session)
        await send(self.socket, b"".join(msgpack.packb(part) for part in (header, *messages)))


def unpack_batch(frame: bytes) -> list[Any]:
    """Unpack a batch: (session, stamp, acknowledged session), then the messages."""
    parts = msgpack.Unpacker(use_list=False)
    parts.feed(frame)
    return list(parts)


async def send(sock: Socket, message: bytes) -> None:
    async with asyncio.timeout(LIMIT):
        while True:
            try:
                return sock.send(message, zmq.NOBLOCK)
            except zmq.Again:
                await asyncio.sleep(0.005)


async def receive(sock: Socket) -> bytes:
    async with asyncio.timeout(LIMIT):
        while True:
            try:
                return sock.recv(zmq.NOBLOCK)
            except zmq.Again:
                await asyncio.sleep(0.005)
