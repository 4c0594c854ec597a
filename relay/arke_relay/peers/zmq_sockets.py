"""Create ZeroMQ sockets and connect them to the event loop.

libzmq is used only here, in `connection_monitor`, `zap_handler`, `join_server`, `outgoing_join`,
`links` and `peer_network`. Sockets are drained in callbacks, never awaited, and closed without
linger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import zmq

from arke_relay.peers.keys import CurvePair

DATA_DOMAIN = b"arke.data"
JOIN_DOMAIN = b"arke.join"
CONNECT_TIMEOUT = 2.0
"""Seconds for a TCP connection."""

_HANDSHAKE_TIMEOUT = 2.0
"""Seconds for the ZeroMQ handshake, on both sides."""
_MAX_DRAINED = 64
"""Messages received before the event loop runs other callbacks."""


class SocketWatcher:
    """Calls back when a ZeroMQ socket is readable or writable.

    `on_readable` receives until zmq.Again, or returns True to be called again soon.
    `on_writable` is called when a full pipe has room again.

    A ZeroMQ descriptor is edge-triggered and only signals that the socket's state changed. The
    state itself must be read after every callback and after every send.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        socket: zmq.Socket[bytes],
        on_readable: Callable[[], bool] | None = None,
        on_writable: Callable[[], None] | None = None,
    ) -> None:
        self._loop = loop
        self._socket = socket
        self._on_readable = on_readable
        self._on_writable = on_writable
        self._scheduled: asyncio.Handle | None = None
        self._descriptor = socket.FD
        self._open = True
        loop.add_reader(self._descriptor, self.check)
        # A pipe signals only after its reader has found it empty once.
        self.check_soon()

    def check(self) -> None:
        """Read the socket's state and call back."""
        self._scheduled = None
        if not self._open:
            return
        events = int(self._socket.getsockopt(zmq.EVENTS))
        more = True
        try:
            more = (
                self._on_readable is not None and bool(events & zmq.POLLIN) and self._on_readable()
            )
            if self._on_writable is not None and self._open and events & zmq.POLLOUT:
                self._on_writable()
        finally:
            # Also after an exception: nothing signals messages that are left unread.
            if more:
                self.check_soon()

    def check_soon(self) -> None:
        """Check in the next iteration of the event loop."""
        if self._scheduled is None and self._open:
            self._scheduled = self._loop.call_soon(self.check)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._loop.remove_reader(self._descriptor)
            if self._scheduled:
                self._scheduled.cancel()


def drain(receive: Callable[[], None]) -> bool:
    """Call `receive` until the socket is empty, 64 times at most. True: there may be more."""
    try:
        for _ in range(_MAX_DRAINED):
            receive()
    except zmq.Again:
        return False
    return True


def curve_server(
    context: zmq.Context[zmq.Socket[bytes]],
    socket_type: int,
    keys: CurvePair,
    domain: bytes,
    max_bytes: int,
) -> zmq.Socket[bytes]:
    """Return an unbound server socket that only admits what the ZAP handler admits.

    The ZAP handler must run before the socket is bound. `max_bytes` is the largest message.
    """
    socket = context.socket(socket_type)
    _configure(socket, max_bytes)
    socket.curve_server = 1
    socket.curve_secretkey = keys.secret
    # Without an enforced domain, libzmq admits any key while no handler runs.
    socket.zap_domain = domain
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    socket.setsockopt(zmq.BACKLOG, 1024)
    return socket


def curve_client(
    context: zmq.Context[zmq.Socket[bytes]],
    socket_type: int,
    keys: CurvePair,
    server_key: bytes,
    max_bytes: int,
) -> zmq.Socket[bytes]:
    """Return a socket for one connection. It does not reconnect: a socket is one session."""
    socket = context.socket(socket_type)
    _configure(socket, max_bytes)
    socket.curve_publickey = keys.public
    socket.curve_secretkey = keys.secret
    socket.curve_serverkey = server_key
    socket.setsockopt(zmq.RECONNECT_IVL, -1)
    socket.setsockopt(zmq.IMMEDIATE, 1)
    socket.setsockopt(zmq.CONNECT_TIMEOUT, int(CONNECT_TIMEOUT * 1000))
    return socket


def _configure(socket: zmq.Socket[bytes], max_bytes: int) -> None:
    socket.linger = 0
    socket.ipv6 = True
    socket.setsockopt(zmq.MAXMSGSIZE, max_bytes)
    socket.setsockopt(zmq.HANDSHAKE_IVL, int(_HANDSHAKE_TIMEOUT * 1000))
    # Keep libzmq's and the kernel's buffers small: data in them delays everything behind it,
    # while the relay's own outbox can still reorder. The high-water mark counts frames.
    socket.sndhwm = 2
    socket.rcvhwm = 2
    socket.sndbuf = 64 * 1024
    socket.rcvbuf = 64 * 1024


def endpoint(host: str, port: int, source: str | None = None) -> str:
    """Return a ZeroMQ endpoint; `source` is the local address to connect from."""
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if source is None:
        return f"tcp://{where}"
    start = f"[{source}]:0" if ":" in source else f"{source}:0"
    return f"tcp://{start};{where}"
