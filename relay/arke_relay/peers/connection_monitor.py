"""Watch the one connection of a ZeroMQ client socket: connected, failed, lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import zmq
from zmq.utils.monitor import parse_monitor_message

from arke_relay.errors import ConnectionFailure
from arke_relay.peers.zmq_sockets import CONNECT_TIMEOUT, SocketWatcher, drain

_FAILURES: dict[int, ConnectionFailure] = {
    zmq.EVENT_DISCONNECTED: ConnectionFailure.CONNECTION_LOST,
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: ConnectionFailure.NOT_ADMITTED,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: ConnectionFailure.WRONG_NETWORK_OR_KEY,
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: ConnectionFailure.WRONG_NETWORK_OR_KEY,
}
_EVENTS = (
    zmq.EVENT_CONNECT_DELAYED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)


class ConnectionMonitor:
    """Calls `on_connected` after the CURVE handshake and `on_failed` for each failure event."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        socket: zmq.Socket[bytes],
        on_connected: Callable[[], None],
        on_failed: Callable[[ConnectionFailure], None],
    ) -> None:
        self._loop = loop
        self._socket = socket
        self._on_connected = on_connected
        self._on_failed = on_failed
        self._started = loop.time()
        self._connecting = False
        self._events = socket.get_monitor_socket(_EVENTS)
        self._watcher = SocketWatcher(loop, self._events, lambda: drain(self._read_event))

    def close(self) -> None:
        self._watcher.close()
        self._socket.disable_monitor()
        self._events.close()

    def _read_event(self) -> None:
        event = parse_monitor_message(self._events.recv_multipart(zmq.NOBLOCK))["event"]
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._on_connected()
        elif event == zmq.EVENT_CONNECT_DELAYED:
            self._connecting = True
        elif event == zmq.EVENT_CLOSED:
            self._on_failed(self._connect_failure())
        else:
            self._on_failed(_FAILURES[event])

    def _connect_failure(self) -> ConnectionFailure:
        """Return why no TCP connection was made.

        libzmq does not report the error number. An attempt that never was under way had no route.
        One that libzmq closed at CONNECT_TIMEOUT timed out; one closed earlier was refused.
        """
        if not self._connecting:
            return ConnectionFailure.NO_ROUTE
        if self._loop.time() - self._started >= CONNECT_TIMEOUT:
            return ConnectionFailure.TIMED_OUT
        return ConnectionFailure.CONNECTION_REFUSED
