"""One request of an HTTP/2 connection: receives its body, queues and sends its response."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Final

from h2.errors import ErrorCodes
from h2.events import DataReceived

from arke_proxy.errors import BadRequest, FailureCode, MalformedMessage, ProxyError
from arke_proxy.http.date import http_date
from arke_proxy.http.error_pages import accept_of
from arke_proxy.http.exchange import Exchange
from arke_proxy.http.header_fields import Field
from arke_proxy.http.messages import RequestHead, ResponseHead
from arke_proxy.http.response_handler import ResponseHandler
from arke_proxy.http.websocket import Splice
from arke_proxy.http1.body import check_size
from arke_proxy.http2.abuse_limits import MAX_FRAME
from arke_proxy.http2.header_fields import own_fields, response_fields, trailer_fields
from arke_proxy.http2.response_state import (
    CLOSED,
    DISCARDING,
    FLUSHING,
    RUNNING,
    TRANSITIONS,
    ResponseState,
)
from arke_proxy.observability.request_record import refusal

if TYPE_CHECKING:
    from arke_proxy.clients.http2_connection import Http2Connection

VERSION: Final = "HTTP/2.0"  # as the access log writes it
_HIGH_WATER = 64 * 1024  # bytes of a response that are queued here for a slow client
_LOW_WATER = 16 * 1024
# Bytes of a request that are still read after its response. Credit for more than one flow-control
# window is sent after the response, so a client that uses it has received the response.
_MAX_DISCARDED = 1024 * 1024


class Http2Stream(ResponseHandler):
    """A ResponseHandler. Its output is queued until the connection calls `send_frame`."""

    __slots__ = (
        "_client_full",
        "_connection",
        "_discarded",
        "_head",
        "_queue",
        "_queued",
        "_received",
        "_request_complete",
        "_state",
        "_trailer",
        "_unacknowledged",
        "_upload_paused",
        "exchange",
        "id",
        "origin",
        "peer",
        "with_body",
    )

    version = VERSION

    def __init__(
        self, connection: Http2Connection, id_: int, *, with_body: bool, request_complete: bool
    ) -> None:
        """`with_body`: False for HEAD; `request_complete`: no body and no trailer follow."""
        self._connection = connection
        self.id = id_
        self.peer = connection.peer
        self.origin = connection.origin
        self.with_body = with_body
        self._state: ResponseState = RUNNING
        self._head: RequestHead | None = None
        self.exchange: Exchange | None = None  # while it runs
        # The request.
        self._request_complete = request_complete  # the client has sent all of it
        self._received = 0  # bytes of its body
        self._upload_paused = False  # the backend is slow to read the body
        self._unacknowledged = 0  # bytes received whose flow-control credit is withheld
        self._discarded = 0  # bytes of the body that arrived after the response was complete
        # The response.
        self._queue: deque[memoryview] = deque()
        self._queued = 0  # bytes
        self._trailer = b""
        self._client_full = False  # the exchange has paused because the client is slow

    @property
    def has_output(self) -> bool:
        """Whether frames remain to be sent."""
        return self._queued > 0 or self._state is FLUSHING

    # Called by the connection.

    def start(self, head: RequestHead) -> None:
        self._head = head
        context = self._connection.context
        now = context.clock()
        self.exchange = exchange = Exchange(self, head, context, now)
        self.progressed()
        self.apply_backpressure()
        exchange.start(now)

    def receive_body(self, event: DataReceived) -> None:
        """Take a part of the body; credit for it is returned when the backend can take more.

        Raises MalformedMessage if the body is not as long as Content-Length says.
        """
        exchange = self.exchange
        complete = self._request_complete = event.stream_ended is not None
        self._unacknowledged += event.flow_controlled_length or 0
        data = event.data or b""
        if not exchange:
            self._discard(len(data))
            return
        self._received += len(data)
        self._check_length(complete=complete)
        if not exchange.uploaded and (data or complete):
            self.progressed()
            try:
                check_size(self._received, self._connection.context.max_body)
            except MalformedMessage as fault:
                self.reject(fault)
                return
            exchange.upload(data, done=complete, trailer=b"")
        if complete or not self._upload_paused:
            self._acknowledge()

    def receive_trailer(self, lines: bytes) -> None:
        """End the body. Raises MalformedMessage if it is shorter than Content-Length says."""
        self._request_complete = True
        exchange = self.exchange
        if not exchange:
            self._discard(0)
            return
        self._check_length(complete=True)
        if not exchange.uploaded:
            self.progressed()
            exchange.upload(b"", done=True, trailer=lines)

    def reject(self, fault: MalformedMessage, head: RequestHead | None = None) -> None:
        """Answer a malformed request; reset the stream if its response has started.

        `head`: the request's head, if that is valid.
        """
        error = BadRequest(f"The request is rejected: {fault}.", fault.status)
        if exchange := self.exchange:
            exchange.reject(error)
            if exchange.response_started:
                self.abort()
                return
        else:
            self._head = head
            record = refusal(self.peer, error, time.monotonic(), head, version=self.version)
            self._connection.context.recorder.record(record)
        self.send_error(error)

    def send_frame(self) -> bool:
        """Send one frame; False if there is none, or the flow-control windows are closed."""
        h2 = self._connection.h2
        if self._queue:
            window = h2.local_flow_control_window(self.id)
            if window <= 0:
                return False
            self._send_data(min(window, MAX_FRAME))
        elif self._state is not FLUSHING:
            return False
        elif self._trailer:
            h2.send_headers(self.id, trailer_fields(self._trailer), end_stream=True)
            self._response_sent()
        else:
            h2.end_stream(self.id)
            self._response_sent()
        return True

    def apply_backpressure(self) -> None:
        """Pause or resume the backend, by what is queued here and on the whole connection."""
        exchange = self.exchange
        if not exchange:
            return
        queued = self._queued
        full = queued > (_LOW_WATER if self._client_full else _HIGH_WATER)
        full = full or not self._connection.has_room(self.id, queued)
        if full and not queued:
            self._connection.starved.add(self)
        else:
            self._connection.starved.discard(self)
        if full is not self._client_full:
            self._client_full = full
            if full:
                exchange.on_client_full()
            else:
                self.progressed()  # the backend is read again only from now on
                exchange.on_client_ready()

    def close(self, code: FailureCode, detail: str = "") -> None:
        """Forget the request; nothing more is sent. `detail` is a sentence that explains `code`."""
        exchange, self.exchange = self.exchange, None
        self._close()
        if exchange:
            exchange.cancel(code, detail)

    def timed_out(self) -> None:
        """Handle the stream's time limit."""
        if self.exchange:
            self.exchange.timed_out()
        elif self._state is DISCARDING:
            self._connection.reset(self, ErrorCodes.NO_ERROR)
        else:  # the response is complete in the proxy, but the client does not read it
            self._connection.reset(self, ErrorCodes.CANCEL)

    # As a ResponseHandler.

    def send_interim(self, head: ResponseHead) -> None:
        self._connection.h2.send_headers(self.id, response_fields(head))
        self._connection.flush()

    def send_response(
        self, head: ResponseHead, payload: bytes, *, done: bool, trailer: bytes
    ) -> None:
        fields = response_fields(head)
        if not head.dated:
            fields.append((b"date", http_date(time.time())))
        self._send_head(fields, payload, done=done, trailer=trailer)

    def send_body(self, payload: bytes, *, done: bool, trailer: bytes) -> None:
        self.progressed()
        if payload:
            self._queue.append(memoryview(payload))
            self._queued += len(payload)
            self._connection.queued += len(payload)
        if done:
            self.exchange = None
            self._enter(FLUSHING)
            self._trailer = trailer
        self._connection.sendable[self] = None
        self._connection.flush()
        self.apply_backpressure()

    def send_error(self, error: ProxyError, request_id: bytes = b"") -> None:
        accept = accept_of(self._head.fields) if self._head else b""
        pages = self._connection.context.error_pages
        fields, body = pages.message(error, time.time(), accept, request_id)
        payload = body if self.with_body else b""
        self._send_head(own_fields(error.status, fields), payload, done=True, trailer=b"")

    def switch_protocols(self, head: ResponseHead, splice: Splice) -> None:  # noqa: ARG002
        raise AssertionError("HTTP/2 has no Upgrade")

    def abort(self) -> None:
        self.exchange = None
        self._connection.reset(self, ErrorCodes.INTERNAL_ERROR)

    def pause_upload(self) -> None:
        self._upload_paused = True

    def resume_upload(self) -> None:
        self._upload_paused = False
        self._acknowledge()
        self._connection.flush()

    def progressed(self) -> None:
        timeouts = self._connection.context.timeouts
        timeouts.streams.start(self, timeouts.clock())

    # Internals.

    def _enter(self, state: ResponseState) -> None:
        assert state in TRANSITIONS[self._state], f"{self._state.name} to {state.name}"
        self._state = state

    def _check_length(self, *, complete: bool) -> None:
        """Raise MalformedMessage if the body contradicts Content-Length (RFC 9113, 8.1.1).

        If it were shorter, a backend would take another client's next request for the rest.
        """
        length = self._head.length if self._head else None
        if length is not None and (
            length < self._received or (complete and length > self._received)
        ):
            raise MalformedMessage("its body is not as long as Content-Length says")

    def _send_head(
        self, fields: list[Field], payload: bytes, *, done: bool, trailer: bytes
    ) -> None:
        head_only = done and not payload and not trailer
        self._connection.h2.send_headers(self.id, fields, end_stream=head_only)
        if head_only:
            self.exchange = None
            self._response_sent()
            self._connection.flush()
        else:
            self.send_body(payload, done=done, trailer=trailer)

    def _send_data(self, most: int) -> None:
        connection = self._connection
        first = self._queue[0]
        if len(first) <= most:
            self._queue.popleft()
        else:
            self._queue[0] = first[most:]
            first = first[:most]
        wanted = min(self._queued, MAX_FRAME)
        self._queued -= len(first)
        connection.queued -= len(first)
        last = self._state is FLUSHING and not self._queue and not self._trailer
        connection.h2.send_data(self.id, bytes(first), end_stream=last)
        connection.abuse_limits.on_data_sent(len(first), wanted)
        self.progressed()
        if last:
            self._response_sent()
        elif self._client_full:
            self.apply_backpressure()

    def _acknowledge(self) -> None:
        """Return the withheld flow-control credit to the client."""
        size, self._unacknowledged = self._unacknowledged, 0
        if size:
            self._connection.h2.acknowledge_received_data(size, self.id)

    def _response_sent(self) -> None:
        """Close after a complete response, or first discard the rest of the request for a while.

        A reset at once would make a client that is still sending discard the unread part of the
        response.
        """
        if self._request_complete:
            self._close()
            return
        timeouts = self._connection.context.timeouts
        timeouts.streams.stop(self)
        timeouts.discarding.start(self, timeouts.clock())
        self._enter(DISCARDING)
        self._connection.starved.discard(self)
        self._acknowledge()

    def _discard(self, size: int) -> None:
        """Drop a part of the body that no exchange needs: the response is complete."""
        self._discarded += size
        if self._state is not DISCARDING:
            self._acknowledge()
        elif self._request_complete:
            self._close()
        elif self._discarded > _MAX_DISCARDED:
            self._connection.reset(self, ErrorCodes.NO_ERROR)
        else:
            self._acknowledge()

    def _close(self) -> None:
        timeouts = self._connection.context.timeouts
        if self._state is DISCARDING:
            timeouts.discarding.stop(self)
        else:
            timeouts.streams.stop(self)
        self._enter(CLOSED)
        self._queue.clear()
        self._connection.queued -= self._queued
        self._queued = 0
        self._acknowledge()
        self._connection.forget(self)
