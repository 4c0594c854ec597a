"""One outgoing join: connect to another relay's join socket and run the handshake."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import zmq

from arke_relay.errors import ConnectionFailure, JoinRefused, PeerUnreachable, RelayError
from arke_relay.peers.connection_monitor import ConnectionMonitor
from arke_relay.peers.join_handshake import AdmittedPeer, Initiator
from arke_relay.peers.join_messages import MAX_MESSAGE_BYTES
from arke_relay.peers.join_server import JOIN_HIGH_WATER, JOIN_TIMEOUT
from arke_relay.peers.keys import CurvePair
from arke_relay.peers.zmq_sockets import SocketWatcher, curve_client, drain, endpoint


class OutgoingJoin:
    """Runs an Initiator over one connection.

    `admit` enters the peer into the admission table, or raises JoinRefused. `done` resolves to the
    admitted peer, or to JoinRefused or PeerUnreachable.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: zmq.Context[zmq.Socket[bytes]],
        keys: CurvePair,
        join_key: bytes,
        initiator: Initiator,
        clock: Callable[[], float],
        admit: Callable[[AdmittedPeer], None],
    ) -> None:
        self._initiator = initiator
        self._clock = clock
        self._admit = admit
        self.done: asyncio.Future[AdmittedPeer] = loop.create_future()
        self._socket = curve_client(context, zmq.DEALER, keys, join_key, MAX_MESSAGE_BYTES)
        self._socket.sndhwm = JOIN_HIGH_WATER
        self._socket.rcvhwm = JOIN_HIGH_WATER
        self._watcher = SocketWatcher(loop, self._socket, lambda: drain(self._receive))
        self._monitor = ConnectionMonitor(
            loop, self._socket, self._connected, self._connection_failed
        )
        self._timer = loop.call_later(
            JOIN_TIMEOUT, self._connection_failed, ConnectionFailure.TIMED_OUT
        )

    def connect(self, host: str, port: int, source: str | None) -> None:
        try:
            self._socket.connect(endpoint(host, port, source))
        except zmq.ZMQError as error:
            self._fail(PeerUnreachable(ConnectionFailure.SOCKET_ERROR, str(error)))

    def check(self) -> None:
        """Process now what has arrived."""
        self._watcher.check()

    def close(self) -> None:
        """Release the socket. Repeated calls do nothing."""
        if self._socket.closed:
            return
        self._timer.cancel()
        self._watcher.close()
        self._monitor.close()
        self._socket.close()
        if not self.done.done():
            self.done.cancel()

    def _receive(self) -> None:
        message = self._socket.recv(zmq.NOBLOCK)
        self._watcher.check_soon()
        if self.done.done():
            return
        try:
            step = self._initiator.receive(message, self._clock())
            if step.admitted is not None:
                self._admit(step.admitted)
                self.done.set_result(step.admitted)
        except JoinRefused as refusal:
            self._fail(refusal)
            return
        if step.send is not None:
            self._socket.send(step.send, zmq.NOBLOCK)

    def _connected(self) -> None:
        self._socket.send(self._initiator.hello(), zmq.NOBLOCK)
        self._watcher.check_soon()

    def _connection_failed(self, failure: ConnectionFailure) -> None:
        self._fail(PeerUnreachable(failure))

    def _fail(self, error: RelayError) -> None:
        if not self.done.done():
            self.done.set_exception(error)
