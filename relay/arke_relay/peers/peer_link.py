"""The sending direction to one peer: queue messages, pack them into batches, send the batches."""

from __future__ import annotations

from collections.abc import Callable

import zmq
from msgpack import Packer

from arke.wire.outbox import Outbox
from arke_relay.core.membership import Neighbour
from arke_relay.environment import RelayEnvironment
from arke_relay.errors import ConnectionFailure
from arke_relay.flusher import Flusher
from arke_relay.peers.batch_reader import MAX_FRAME
from arke_relay.peers.connection_monitor import ConnectionMonitor
from arke_relay.peers.keys import CurvePair
from arke_relay.peers.zmq_sockets import SocketWatcher, curve_client, endpoint

_MAX_QUEUED = 64 * 1024 * 1024
"""Bytes queued for one peer. Beyond it, requests go elsewhere and broadcasts are dropped."""

_BATCH_TARGET = 48 * 1024
"""Bytes after which a batch takes no further message. One chunk may follow them, and the frame
must stay within MAX_FRAME: libzmq closes a connection that carries more."""


class PeerLink:
    """One session toward one peer: the MessageSink of a Peer. `on_broken` gets the reason."""

    def __init__(
        self,
        environment: RelayEnvironment,
        context: zmq.Context[zmq.Socket[bytes]],
        keys: CurvePair,
        neighbour: Neighbour,
        session: int,
        flusher: Flusher,
        on_broken: Callable[[str], None],
    ) -> None:
        self._loop = environment.loop
        self._clock = environment.clock
        self._flusher = flusher
        self._on_broken = on_broken
        self._session = session
        self._pack = Packer().pack
        self._outbox = Outbox(_MAX_QUEUED, self._wake, self.flush, neighbour.max_message)
        # Bind the outbox's methods: this saves a call for every message.
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
        self._acknowledged_session = 0
        self._socket = curve_client(context, zmq.PUSH, keys, neighbour.curve_key, MAX_FRAME)
        self._watcher = SocketWatcher(self._loop, self._socket, on_writable=self._writable)
        self._monitor = ConnectionMonitor(
            self._loop, self._socket, self._handshake_succeeded, self._connection_failed
        )

    def connect(self, host: str, port: int, source: str | None) -> None:
        self._socket.connect(endpoint(host, port, source))

    @property
    def queued(self) -> int:
        """Bytes that wait to be sent."""
        return self._outbox.size + len(self._unsent)

    # MessageSink and Link.

    def overrun(self) -> None:
        # Not now: the caller may be iterating over the peers.
        self._loop.call_soon(self._break, "send_buffer_full")

    def _wake(self) -> None:
        self._flusher.dirty.append(self)

    def flush(self) -> None:
        if not self._connected or self._blocked or not self._open:
            return
        outbox = self._outbox
        while outbox:
            if not self._send(outbox.take(_BATCH_TARGET)):
                return

    def acknowledge(self, session: int) -> None:
        self._acknowledged_session = session
        if self._connected and not self._blocked:
            self._send(b"")

    def heartbeat(self) -> None:
        if not self._sent and self._connected and not self._blocked:
            self._send(b"")
        self._sent = False

    def close(self, linger: float = 0.0) -> None:
        if self._open:
            self._open = False
            self._socket.linger = int(linger * 1000)
            self._watcher.close()
            self._monitor.close()
            self._socket.close()
            self._outbox.close()
            self._unsent = b""

    def _send(self, messages: bytes) -> bool:
        """Send one batch. False: libzmq is full, and the batch waits here until it has room."""
        header = self._pack((self._session, int(self._clock() * 1000), self._acknowledged_session))
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

    def _handshake_succeeded(self) -> None:
        self._connected = True
        self._send(b"")
        self.flush()

    def _connection_failed(self, failure: ConnectionFailure) -> None:
        self._loop.call_soon(self._break, failure.value)

    def _break(self, reason: str) -> None:
        if self._open:
            self._on_broken(reason)
