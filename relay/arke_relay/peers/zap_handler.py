"""The admission handler of libzmq (ZAP): asked about every connection before it is read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import zmq

from arke_relay.peers.zap_protocol import answer
from arke_relay.peers.zmq_sockets import DATA_DOMAIN, JOIN_DOMAIN, Watched, drain

_ENDPOINT = "inproc://zeromq.zap.01"


class Gate:
    """Runs as soon as it is made, and must be made before any guarded port is bound.

    Whoever completed a CURVE handshake with a join socket holds the join key, so the join itself
    decides about them. To the data socket only keys come in that `admitted` knows (raw key → node
    id or None).
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: zmq.Context[zmq.Socket[bytes]],
        admitted: Callable[[bytes], str | None],
        refused: Callable[[str], None],
    ) -> None:
        self._admitted = admitted
        self._refused = refused
        self._socket = context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._socket.bind(_ENDPOINT)
        self._watched = Watched(loop, self._socket, lambda: drain(self._answer))

    def close(self) -> None:
        self._watched.close()
        self._socket.close()

    def _answer(self) -> None:
        reply = answer(self._socket.recv_multipart(zmq.NOBLOCK), self._decide)
        if reply is not None:
            self._socket.send_multipart(reply, zmq.NOBLOCK)

    def _decide(self, domain: str, key: bytes, address: str) -> str | None:
        if domain == JOIN_DOMAIN.decode():
            return "candidate"
        node = self._admitted(key) if domain == DATA_DOMAIN.decode() else None
        if node is None:
            self._refused(address)
        return node
