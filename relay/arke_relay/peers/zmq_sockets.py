"""ZeroMQ on the loop: sockets that are drained, never awaited, and closed with nothing left behind.

Everything this relay knows about libzmq is here and in the two files that use it (`links`,
`joins`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import zmq

from arke_relay.peers.keys import CurvePair

DATA_DOMAIN = b"arke.data"
JOIN_DOMAIN = b"arke.join"

_DRAIN = 64
"""Messages taken in one go before others on the loop get their turn."""


class Watched:
    """A socket whose readiness calls back.

    `on_readable` receives until zmq.Again, or returns True to be called again at once;
    `on_writable` is called when a full pipe has room again.

    The descriptor of a ZeroMQ socket tells only that something changed: after every callback, and
    after every send, the state itself must be looked at.
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
        self._again: asyncio.Handle | None = None
        self._descriptor = socket.FD
        self._open = True
        loop.add_reader(self._descriptor, self.look)
        # A pipe signals only a reader that has once found it empty.
        self.look_soon()

    def look(self) -> None:
        """See what is ready, and call back."""
        self._again = None
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
            # After an error too: nothing signals what is left unread, the socket would be deaf.
            if more:
                self.look_soon()

    def look_soon(self) -> None:
        if self._again is None and self._open:
            self._again = self._loop.call_soon(self.look)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._loop.remove_reader(self._descriptor)
            if self._again:
                self._again.cancel()


def drain(receive: Callable[[], None]) -> bool:
    """Receive until there is nothing more, or enough for once; True: there may be more."""
    try:
        for _ in range(_DRAIN):
            receive()
    except zmq.Again:
        return False
    return True


def curve_server(
    context: zmq.Context[zmq.Socket[bytes]], kind: int, keys: CurvePair, domain: bytes, largest: int
) -> zmq.Socket[bytes]:
    """A socket that strangers cannot get into, not bound yet: first the ZAP handler must run.

    `largest` is the size of the largest message, in octets.
    """
    socket = context.socket(kind)
    _common(socket, largest)
    socket.curve_server = 1
    socket.curve_secretkey = keys.secret
    # Without a domain that is enforced, libzmq admits any key while no handler runs.
    socket.zap_domain = domain
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    socket.setsockopt(zmq.BACKLOG, 1024)
    return socket


def curve_client(
    context: zmq.Context[zmq.Socket[bytes]],
    kind: int,
    keys: CurvePair,
    server_key: bytes,
    largest: int,
) -> zmq.Socket[bytes]:
    """A socket for one connection: broken, it stays broken, so that a socket is a session."""
    socket = context.socket(kind)
    _common(socket, largest)
    socket.curve_publickey = keys.public
    socket.curve_secretkey = keys.secret
    socket.curve_serverkey = server_key
    socket.setsockopt(zmq.RECONNECT_IVL, -1)
    socket.setsockopt(zmq.IMMEDIATE, 1)
    socket.setsockopt(zmq.CONNECT_TIMEOUT, 2_000)
    return socket


def _common(socket: zmq.Socket[bytes], largest: int) -> None:
    socket.linger = 0
    socket.ipv6 = True
    socket.setsockopt(zmq.MAXMSGSIZE, largest)
    socket.setsockopt(zmq.HANDSHAKE_IVL, 2_000)
    # The high-water mark counts frames of up to 128 KiB. What waits in libzmq, or in the kernel,
    # delays whatever comes behind it; our own scheduler can still choose.
    socket.sndhwm = 2
    socket.rcvhwm = 2
    socket.sndbuf = 64 * 1024
    socket.rcvbuf = 64 * 1024


def endpoint(host: str, port: int, source: str | None = None) -> str:
    """A ZeroMQ endpoint; `source` is the local address to connect from."""
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if source is None:
        return f"tcp://{where}"
    start = f"[{source}]:0" if ":" in source else f"{source}:0"
    return f"tcp://{start};{where}"
