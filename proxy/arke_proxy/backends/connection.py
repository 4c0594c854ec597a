"""A connection to a backend: one request at a time, and what comes back."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from abc import ABC, abstractmethod
from typing import Final, cast

from arke_proxy.backends.address import BackendAddress
from arke_proxy.backends.dialer import UNACKNOWLEDGED_MS
from arke_proxy.connections.hub import Hub
from arke_proxy.connections.write_batch import Outlet
from arke_proxy.errors import BadResponse, Malformed
from arke_proxy.http.messages import RequestHead, ResponseHead, has_body
from arke_proxy.http1.body import Body, StreamBody, response_body
from arke_proxy.http1.head_buffer import HeadBuffer
from arke_proxy.http1.head_parser import parse_response

_SURELY_TAKEN: Final = 16 * 1024  # bytes; a host's window takes them whatever its program does
_HIGH_WATER: Final = 64 * 1024  # bytes waiting in this process for a slow backend
_MOST_INTERIM: Final = 100  # answers 1xx to one request
_DEAD_HOST: Final = frozenset((errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH))


class BackendEvents(ABC):
    """Who sent the request, and gets what comes of it."""

    __slots__ = ()

    @abstractmethod
    def on_response(self, head: ResponseHead | None, payload: bytes, *, done: bool) -> None:
        """Take a piece of the answer. A head comes first: once for each 1xx, then the final one."""

    @abstractmethod
    def on_backend_failed(
        self, reason: str, *, sent: bool, answering: bool, host_dead: bool
    ) -> None:
        """Learn that the connection ended too early.

        `sent`: the backend may have got some of the request; `answering`: some of the answer came.
        """

    @abstractmethod
    def on_bad_response(self, error: BadResponse) -> None:
        """Learn that what came is no response."""

    @abstractmethod
    def on_switch_protocols(self, head: ResponseHead, rest: bytes) -> None:
        """Learn that the backend leaves HTTP, as was asked; `rest` is what it has sent since."""

    @abstractmethod
    def on_backend_full(self) -> None:
        """Send no more for now: the backend is slow to read."""

    @abstractmethod
    def on_backend_ready(self) -> None:
        """Go on sending."""


class BackendConnection:
    """One connection, used for one request after another; a protocol of the loop's."""

    __slots__ = (
        "_body",
        "_events",
        "_head",
        "_heads",
        "_hub",
        "_interim",
        "_method",
        "_out",
        "_patient",
        "_paused",
        "_reusable",
        "_sent",
        "_socket",
        "_transport",
        "_upgrade",
        "address",
        "owes_100",
        "used",
    )

    def __init__(self, address: BackendAddress, sock: socket.socket | None, hub: Hub) -> None:
        self.address = address
        self.used = False  # for a request before this one
        self._socket = sock  # None at the end of a tunnel
        self._hub = hub
        self._transport: asyncio.Transport
        self._out: Outlet
        self._heads = HeadBuffer(skips_empty_lines=False)
        self._events: BackendEvents | None = None
        self._method = b""
        self.owes_100 = False  # the client waits for an answer 100 before it sends the body
        self._upgrade: bytes | None = None  # what this request asks to switch to
        self._head: ResponseHead | None = None  # the final one, once it has come
        self._body: Body | None = None
        self._reusable = True
        self._interim = 0  # answers 1xx to this request
        self._sent = 0  # bytes of this request
        self._patient = False
        self._paused = False

    @property
    def trailer(self) -> bytes:
        """The lines that may be passed on after a chunked answer."""
        return self._body.trailer if self._body else b""

    # For the exchange.

    def start_request(self, events: BackendEvents, request: RequestHead) -> None:
        """Take up a request; `write` sends it."""
        self._events = events
        self._method = request.method
        self._upgrade = request.upgrade
        self.owes_100 = (request.chunked or bool(request.length)) and any(
            len(name) == 6 and name.lower() == b"expect" for name, _ in request.fields
        )
        self._head = self._body = None
        self._interim = 0
        self._sent = 0

    def write(self, data: bytes) -> None:
        self._sent += len(data)
        if self._sent > _SURELY_TAKEN and not self._patient:
            # A full window counts as unacknowledged: a slow program would pass for a dead host.
            self._patient = True
            self._limit_unacknowledged(0)
        self._out.write(data)

    def pause(self) -> None:
        self._paused = True
        self._transport.pause_reading()

    def resume(self) -> None:
        self._paused = False
        self._transport.resume_reading()

    def finish(self, now: float) -> None:
        """End the request after a whole answer, and keep the connection if it can be kept."""
        self._events = None
        self.used = True
        transport = self._transport
        if not self._reusable or self._out.held or transport.is_closing():
            transport.abort()
            return
        if self._patient:
            if self._out.transport().get_write_buffer_size():
                transport.abort()  # it has answered without reading everything
                return
            self._patient = False
            self._limit_unacknowledged(UNACKNOWLEDGED_MS)
        if self._paused:
            self.resume()
        if not self._hub.pool.give(self.address, self, now):
            transport.close()

    def prevent_reuse(self) -> None:
        """Use the connection for no further request."""
        self._reusable = False

    def abort(self) -> None:
        """End the request before its answer did: what is under way here is worthless."""
        self._events = None
        self._transport.abort()

    def detach(self) -> asyncio.Transport:
        """Give the connection away, out of HTTP; whoever has it says when it has `ended`."""
        self._events = None
        self._limit_unacknowledged(0)
        return self._out.transport()

    def mark_closed(self) -> None:
        """Count the connection no longer."""
        if self._socket is not None:
            self._hub.dialer.closed(self._socket)

    # For the pool.

    def close(self) -> None:
        self._transport.close()

    def is_dead(self) -> bool:
        """Look, before an event says so, whether this idle connection has ended, or is not idle."""
        if self._transport.is_closing():  # for what it said, which the loop has read already
            return True
        if self._socket is None:
            return False
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    # For the loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)
        self._out = Outlet(self._hub.turn, self._transport)

    def data_received(self, data: bytes) -> None:
        events = self._events
        if events is None:
            self._unasked()
            return
        try:
            if self._head is None:
                if self._sent == self._out.held:  # all of the request is still here
                    self._break(events, None, "spoke before it was asked")
                elif (raw := self._heads.take(data)) is not None:
                    self._read_heads(events, raw)
            else:
                self._read_body(events, None, data)
        except Malformed as fault:
            self.abort()
            events.on_bad_response(
                BadResponse(f"The answer of backend {self.address} is refused: {fault}.")
            )

    def eof_received(self) -> None:
        events = self._events
        if events is None:
            self._hub.pool.forget(self.address, self)
        elif self._body and self._body.ends_with_stream():
            events.on_response(None, b"", done=True)
        else:
            self._break(events, None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.mark_closed()
        if self._events:
            self._break(self._events, exc)
        else:
            self._hub.pool.forget(self.address, self)

    def pause_writing(self) -> None:
        if self._events:
            self._events.on_backend_full()

    def resume_writing(self) -> None:
        if self._events:
            self._events.on_backend_ready()

    def _read_heads(self, events: BackendEvents, raw: bytes | None) -> None:
        while raw is not None:
            head = parse_response(raw)
            status = head.status
            if status >= 200:
                self._begin_body(events, head)
                return
            if status == 101:
                self._switch(events, head)
                return
            self._interim += 1
            self.owes_100 = self.owes_100 and status != 100
            if self._interim > _MOST_INTERIM:
                raise Malformed(f"more than {_MOST_INTERIM} answers 1xx precede it")
            events.on_response(head, b"", done=False)
            if self._events is not events:
                return
            raw = self._heads.pull()

    def _begin_body(self, events: BackendEvents, head: ResponseHead) -> None:
        self._head = head
        # Without an answer 100 it may expect no body, and take the one that comes for a request.
        self._reusable = head.keep_alive and not self.owes_100
        rest = self._heads.rest()
        if head.length == len(rest) and has_body(head, self._method):  # the usual way is short
            events.on_response(head, rest, done=True)
            return
        self._body = response_body(head, self._method)
        if isinstance(self._body, StreamBody):
            self._reusable = False
        self._read_body(events, head, rest)

    def _switch(self, events: BackendEvents, head: ResponseHead) -> None:
        if self._upgrade is None or head.upgrade != self._upgrade:
            raise Malformed("it switches protocols, unasked")
        events.on_switch_protocols(head, self._heads.rest())

    def _read_body(self, events: BackendEvents, head: ResponseHead | None, data: bytes) -> None:
        if self._body is None:
            payload, rest, done = b"", data, True
        else:
            payload, rest = self._body.feed(data)
            done = self._body.done
        if rest:
            self._reusable = False  # else the next request would take it for its answer
        events.on_response(head, payload, done=done)

    def _break(self, events: BackendEvents, exc: Exception | None, reason: str = "") -> None:
        answering = self._head is not None or self._interim > 0 or not self._heads.empty
        host_dead = isinstance(exc, OSError) and exc.errno in _DEAD_HOST
        sent = self._sent != self._out.held
        self.abort()
        if not reason:
            reason = describe(exc)
            if exc is None and self._head is not None:
                reason = "closed the connection in mid-answer"
        events.on_backend_failed(reason, sent=sent, answering=answering, host_dead=host_dead)

    def _unasked(self) -> None:
        self._hub.pool.forget(self.address, self)
        self._transport.abort()
        self._hub.complaints.warn(
            (self.address, "unasked"), f"backend {self.address} sent what nobody asked for"
        )

    def _limit_unacknowledged(self, milliseconds: int) -> None:
        if self._socket is None:
            return  # the relays look after their links, and tell
        with contextlib.suppress(OSError):  # it may just have closed
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def describe(error: Exception | None) -> str:
    """Complete the sentence "backend 192.168.56.102:63450 …"."""
    if error is None:
        return "closed the connection before it had answered"
    if isinstance(error, TimeoutError):
        return "is silent"
    if isinstance(error, ConnectionRefusedError):
        return "refuses connections"
    if isinstance(error, OSError) and error.errno:
        return f"cannot be talked to ({os.strerror(error.errno)})"
    return f"cannot be talked to ({error})"
