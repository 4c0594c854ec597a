"""The data between relays: one socket that hears every peer, and one socket to each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import zmq
from msgpack import Packer
from zmq.utils.monitor import parse_monitor_message

from arke.wire.outbox import Outbox
from arke_relay.flusher import Flusher
from arke_relay.peers.batches import FRAME
from arke_relay.peers.keys import CurvePair
from arke_relay.peers.zmq_sockets import (
    DATA_DOMAIN,
    Watched,
    curve_client,
    curve_server,
    drain,
    endpoint,
)

_OUTBOX = 64 * 1024 * 1024
"""Octets that may wait for one peer. Beyond, requests go elsewhere and broadcasts are dropped."""

_BATCH = 48 * 1024
"""Octets after which a frame is full. One chunk may stand behind them, and all must be within
FRAME: libzmq cuts a link that carries more."""

_TURN = FRAME
"""Octets of peers after which others on the loop get their turn."""

_FRAME_COST = 1024
"""Octets that handling a frame costs beside its own: empty ones are not for nothing."""

_ENDINGS: dict[int, str] = {
    zmq.EVENT_DISCONNECTED: "the connection broke",
    zmq.EVENT_CLOSED: "it cannot be reached",
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "it does not admit this relay",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "it has another key",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "the handshake failed",
}


class DataSocket:
    """Hears every admitted peer. `receive` gets the key that admission attached, and the frame."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: zmq.Context[zmq.Socket[bytes]],
        keys: CurvePair,
        receive: Callable[[bytes, bytes], None],
        flusher: Flusher,
    ) -> None:
        self._receive = receive
        self._flusher = flusher
        self.socket = curve_server(context, zmq.PULL, keys, DATA_DOMAIN, FRAME)
        self._watched = Watched(loop, self.socket, self._readable)

    def close(self) -> None:
        self._watched.close()
        self.socket.close()

    def _readable(self) -> bool:
        taken = 0
        try:
            while taken < _TURN:
                taken += self._take()
        except zmq.Again:
            return False
        finally:
            self._flusher.flush()
        return True

    def _take(self) -> int:
        frame = self.socket.recv(zmq.NOBLOCK, copy=False)
        key = frame.get("User-Id")
        self._receive(bytes.fromhex(str(key)), frame.bytes)
        return len(frame) + _FRAME_COST


class PeerLink:
    """One session toward one peer: the sink of a Peer."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: zmq.Context[zmq.Socket[bytes]],
        keys: CurvePair,
        peer_key: bytes,
        max_message: int,
        session: int,
        clock: Callable[[], float],
        flusher: Flusher,
        broke: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._flusher = flusher
        self._broke = broke
        self._session = session
        self._pack = Packer().pack
        self._outbox = Outbox(_OUTBOX, self._wake, self.flush, max_message)
        # The sink's part of this is the outbox itself: a call less for every message.
        self.put = self._outbox.put
        self.put_body = self._outbox.put_body
        self.put_packed = self._outbox.put_packed
        self.put_in_flow = self._outbox.put_in_flow
        self.drop_flow = self._outbox.drop_flow
        self._connected = False
        self._blocked = False
        self._sent = False
        self._unsent = b""
        self._open = True
        self._hearing = 0
        self._socket = curve_client(context, zmq.PUSH, keys, peer_key, FRAME)
        self._monitor = self._socket.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED | _bits(_ENDINGS)
        )
        self._watched = Watched(loop, self._socket, on_writable=self._writable)
        self._watching = Watched(loop, self._monitor, lambda: drain(self._event))

    def connect(self, host: str, port: int, source: str | None) -> None:
        self._socket.connect(endpoint(host, port, source))

    @property
    def queued(self) -> int:
        return self._outbox.size + len(self._unsent)

    # MessageSink.

    def overrun(self) -> None:
        # Not at once: whoever found out is in the middle of something.
        self._loop.call_soon(self._end, "it does not keep up")

    def _wake(self) -> None:
        self._flusher.dirty.append(self)

    def flush(self) -> None:
        if not self._connected or self._blocked or not self._open:
            return
        outbox = self._outbox
        while outbox:
            if not self._send(outbox.take(_BATCH)):
                return

    def hear(self, session: int) -> None:
        self._hearing = session
        if self._connected and not self._blocked:
            self._send(b"")

    def beat(self) -> None:
        if not self._sent and self._connected and not self._blocked:
            self._send(b"")
        self._sent = False

    def close(self, linger: float = 0.0) -> None:
        if self._open:
            self._open = False
            self._socket.linger = int(linger * 1000)
            self._watched.close()
            self._watching.close()
            self._socket.disable_monitor()
            self._monitor.close()
            self._socket.close()
            self._outbox.close()
            self._unsent = b""

    def _send(self, messages: bytes) -> bool:
        """Send one batch; what libzmq does not take now waits here for room."""
        header = self._pack((self._session, int(self._clock() * 1000), self._hearing))
        try:
            self._socket.send(header + messages, zmq.NOBLOCK)
        except zmq.Again:
            self._unsent = messages
            self._blocked = True
            return False
        self._sent = True
        return True

    def _writable(self) -> None:
        if self._blocked:
            self._blocked = False
            messages, self._unsent = self._unsent, b""
            if self._send(messages):
                self.flush()

    def _event(self) -> None:
        event = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))["event"]
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._connected = True
            self._send(b"")
            self.flush()
        elif event in _ENDINGS:
            self._loop.call_soon(self._end, _ENDINGS[event])

    def _end(self, reason: str) -> None:
        if self._open:
            self._broke(reason)


def _bits(events: dict[int, str]) -> int:
    bits = 0
    for event in events:
        bits |= event
    return bits
