"""ZAP handler: libzmq asks it about every CURVE connection before it reads a message from it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import zmq

from arke_relay.peers.zap_protocol import answer
from arke_relay.peers.zmq_sockets import DATA_DOMAIN, JOIN_DOMAIN, SocketWatcher, drain

_ENDPOINT = "inproc://zeromq.zap.01"


class ZapHandler:
    """Runs from its creation. Create it before any guarded socket is bound.

    Connections to the join socket are accepted: their CURVE handshake proves the join key, and
    the join decides. Connections to the data socket are accepted only from nodes that
    `find_admitted` (CURVE key → node id or None) returns. `on_rejected` gets the address of each
    other one.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: zmq.Context[zmq.Socket[bytes]],
        find_admitted: Callable[[bytes], str | None],
        on_rejected: Callable[[str], None],
    ) -> None:
        self._find_admitted = find_admitted
        self._on_rejected = on_rejected
        self._socket = context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._socket.bind(_ENDPOINT)
        self._watcher = SocketWatcher(loop, self._socket, lambda: drain(self._answer))

    def close(self) -> None:
        self._watcher.close()
        self._socket.close()

    def _answer(self) -> None:
        reply = answer(self._socket.recv_multipart(zmq.NOBLOCK), self._decide)
        if reply is not None:
            self._socket.send_multipart(reply, zmq.NOBLOCK)

    def _decide(self, domain: str, key: bytes, address: str) -> str | None:
        if domain == JOIN_DOMAIN.decode():
            return "candidate"
        node = self._find_admitted(key) if domain == DATA_DOMAIN.decode() else None
        if node is None:
            self._on_rejected(address)
        return node
