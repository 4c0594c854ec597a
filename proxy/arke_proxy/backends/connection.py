"""A connection to a backend: sends one request at a time and reads its response."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final, cast

from arke_proxy.backends.address import BackendAddress
from arke_proxy.backends.dialer import USER_TIMEOUT_MS, Dialer
from arke_proxy.backends.pool import Pool
from arke_proxy.connections.write_batch import BatchedWriter, WriteBatch
from arke_proxy.errors import BadResponse, MalformedMessage
from arke_proxy.http.messages import RequestHead, ResponseHead, has_body
from arke_proxy.http1.body import BodyParser, StreamBody, response_body
from arke_proxy.http1.head_buffer import HeadBuffer
from arke_proxy.http1.head_parser import parse_response
from arke_proxy.log import warn_limited

_KERNEL_BUFFERED: Final = 16 * 1024  # bytes that a backend's kernel accepts, even if unread
_HIGH_WATER: Final = 64 * 1024  # bytes buffered in this process for a slow backend
_MAX_INTERIM: Final = 100  # responses 1xx to one request
_DEAD_HOST: Final = frozenset((errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH))


class BackendEvents(ABC):
    """Callbacks of a backend connection, for the request that it carries."""

    __slots__ = ()

    @abstractmethod
    def on_response(self, head: ResponseHead | None, payload: bytes, *, done: bool) -> None:
        """Handle a part of the response: each 1xx head, then the final head, then its body."""

    @abstractmethod
    def on_backend_failed(
        self, reason: str, *, sent: bool, answering: bool, host_dead: bool
    ) -> None:
        """Handle a connection that ended before the response did.

        `sent`: the backend may have received a part of the request; `answering`: a part of the
        response arrived; `host_dead`: the whole host is unreachable.
        """

    @abstractmethod
    def on_bad_response(self, error: BadResponse) -> None:
        """Handle a malformed response."""

    @abstractmethod
    def on_switch_protocols(self, head: ResponseHead, rest: bytes) -> None:
        """Handle status 101: the protocol changes; `rest` is the data received after the head."""

    @abstractmethod
    def on_backend_full(self) -> None:
        """Pause the upload: the send buffer is full, because the backend reads slowly."""

    @abstractmethod
    def on_backend_ready(self) -> None:
        """Resume the upload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendEnvironment:
    """What all backend connections of a process share."""

    pool: Pool[BackendConnection]
    dialer: Dialer
    write_batch: WriteBatch


class BackendConnection:
    """One connection, used for one request after another; an asyncio protocol."""

    __slots__ = (
        "_body",
        "_environment",
        "_events",
        "_head",
        "_heads",
        "_interim",
        "_method",
        "_out",
        "_paused",
        "_reusable",
        "_sent",
        "_socket",
        "_transport",
        "_upgrade",
        "_user_timeout_off",
        "address",
        "owes_100",
        "used",
    )

    def __init__(
        self, address: BackendAddress, sock: socket.socket | None, environment: BackendEnvironment
    ) -> None:
        self.address = address
        self.used = False  # an earlier request has been answered on it
        self._socket = sock  # None for a tunnel
        self._environment = environment
        self._transport: asyncio.Transport
        self._out: BatchedWriter
        self._heads = HeadBuffer(skips_empty_lines=False)
        self._events: BackendEvents | None = None
        self._method = b""
        self.owes_100 = False  # the request expects 100 Continue, which has not arrived yet
        self._upgrade: bytes | None = None  # the value of the request's `Upgrade` field
        self._head: ResponseHead | None = None  # of the final response, once it has arrived
        self._body: BodyParser | None = None
        self._reusable = True
        self._interim = 0  # responses 1xx to this request
        self._sent = 0  # bytes of this request
        self._user_timeout_off = False
        self._paused = False

    @property
    def trailer(self) -> bytes:
        """The trailer fields of a chunked response."""
        return self._body.trailer if self._body else b""

    # Called by the exchange.

    def start_request(self, events: BackendEvents, request: RequestHead) -> None:
        """Begin a request; `write` sends it."""
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
        if self._sent > _KERNEL_BUFFERED and not self._user_timeout_off:
            # With a full window TCP_USER_TIMEOUT would treat a slow program as a dead host.
            self._user_timeout_off = True
            self._set_user_timeout(0)
        self._out.write(data)

    def pause(self) -> None:
        self._paused = True
        self._transport.pause_reading()

    def resume(self) -> None:
        self._paused = False
        self._transport.resume_reading()

    def finish(self, now: float) -> None:
        """End the request after its response; return the connection to the pool if possible."""
        self._events = None
        self.used = True
        transport = self._transport
        if not self._reusable or self._out.pending or transport.is_closing():
            transport.abort()
            return
        if self._user_timeout_off:
            if self._out.flushed_transport().get_write_buffer_size():
                transport.abort()  # the backend answered without reading it all
                return
            self._user_timeout_off = False
            self._set_user_timeout(USER_TIMEOUT_MS)
        if self._paused:
            self.resume()
        if not self._environment.pool.give(self.address, self, now):
            transport.close()

    def prevent_reuse(self) -> None:
        """Close the connection after this request."""
        self._reusable = False

    def abort(self) -> None:
        """Close the connection at once, and drop the request it carries."""
        self._events = None
        self._transport.abort()

    def detach(self) -> asyncio.Transport:
        """Return the transport, for another protocol. Its owner calls `mark_closed` at the end."""
        self._events = None
        self._set_user_timeout(0)
        return self._out.flushed_transport()

    def mark_closed(self) -> None:
        """Stop counting the connection towards the dialer's limit."""
        if self._socket is not None:
            self._environment.dialer.closed(self._socket)

    # Called by the pool's users.

    def close(self) -> None:
        self._transport.close()

    def is_dead(self) -> bool:
        """Say whether an idle connection is closed or has unexpected data (tunnel: is closed)."""
        if self._transport.is_closing():  # unexpected data that the loop has already read
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

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)
        self._out = BatchedWriter(self._environment.write_batch, self._transport)

    def data_received(self, data: bytes) -> None:
        events = self._events
        if events is None:
            self._unexpected_data()
            return
        try:
            if self._head is None:
                if self._sent == self._out.pending:  # nothing of the request has been sent
                    self._fail(events, None, "sent data before the request")
                elif (raw := self._heads.take(data)) is not None:
                    self._read_heads(events, raw)
            else:
                self._read_body(events, None, data)
        except MalformedMessage as fault:
            self.abort()
            events.on_bad_response(
                BadResponse(f"The response of backend {self.address} is rejected: {fault}.")
            )

    def eof_received(self) -> None:
        events = self._events
        if events is None:
            self._environment.pool.forget(self.address, self)
        elif self._body and self._body.ends_with_stream():
            events.on_response(None, b"", done=True)
        else:
            self._fail(events, None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.mark_closed()
        if self._events:
            self._fail(self._events, exc)
        else:
            self._environment.pool.forget(self.address, self)

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
            if self._interim > _MAX_INTERIM:
                raise MalformedMessage(f"more than {_MAX_INTERIM} responses 1xx")
            events.on_response(head, b"", done=False)
            if self._events is not events:
                return
            raw = self._heads.pull()

    def _begin_body(self, events: BackendEvents, head: ResponseHead) -> None:
        self._head = head
        # Without 100 Continue the backend may expect no body, and read it as the next request.
        self._reusable = head.keep_alive and not self.owes_100
        rest = self._heads.rest()
        if head.length == len(rest) and has_body(head, self._method):  # the common case
            events.on_response(head, rest, done=True)
            return
        self._body = response_body(head, self._method)
        if isinstance(self._body, StreamBody):
            self._reusable = False
        self._read_body(events, head, rest)

    def _switch(self, events: BackendEvents, head: ResponseHead) -> None:
        if self._upgrade is None or head.upgrade != self._upgrade:
            raise MalformedMessage("101 Switching Protocols without a matching request")
        events.on_switch_protocols(head, self._heads.rest())

    def _read_body(self, events: BackendEvents, head: ResponseHead | None, data: bytes) -> None:
        if self._body is None:
            payload, rest, done = b"", data, True
        else:
            payload, rest = self._body.feed(data)
            done = self._body.done
        if rest:
            self._reusable = False  # or it would be read as the next response
        events.on_response(head, payload, done=done)

    def _fail(self, events: BackendEvents, exc: Exception | None, reason: str = "") -> None:
        answering = self._head is not None or self._interim > 0 or not self._heads.empty
        host_dead = isinstance(exc, OSError) and exc.errno in _DEAD_HOST
        sent = self._sent != self._out.pending
        self.abort()
        if not reason:
            reason = describe(exc)
            if exc is None and self._head is not None:
                reason = "closed the connection before the end of its response"
        events.on_backend_failed(reason, sent=sent, answering=answering, host_dead=host_dead)

    def _unexpected_data(self) -> None:
        self._environment.pool.forget(self.address, self)
        self._transport.abort()
        warn_limited(
            (self.address, "unexpected data"),
            "backend sent data without a request",
            backend=str(self.address),
        )

    def _set_user_timeout(self, milliseconds: int) -> None:
        """Set how long sent data may stay unacknowledged; 0 for the system's default."""
        if self._socket is None:
            return  # a tunnel: the relays detect dead peers
        with contextlib.suppress(OSError):  # the socket may be closed
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def describe(error: Exception | None) -> str:
    """Describe a connection error, to complete "backend 192.168.56.102:63450 …"."""
    if error is None:
        return "closed the connection before it answered"
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, ConnectionRefusedError):
        return "refused the connection"
    if isinstance(error, OSError) and error.errno:
        return f"failed ({os.strerror(error.errno)})"
    return f"failed ({error})"
