"""A client's HTTP/2 connection: concurrent streams, which take turns to send their responses."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import cast

from h2.connection import ConnectionState
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RequestReceived,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import NoSuchStreamError, ProtocolError, StreamClosedError

from arke_proxy.clients.http2_stream import VERSION, Http2Stream
from arke_proxy.connections.client_state import CLOSED, IDLE, LINGERING, REQUEST_HEAD, STREAMS
from arke_proxy.connections.graceful_close import close_gracefully, linger_timed_out
from arke_proxy.connections.reset import reset
from arke_proxy.context import ProxyContext
from arke_proxy.errors import FailureCode, Http2ProtocolError, MalformedMessage
from arke_proxy.http.forwarded import ClientOrigin
from arke_proxy.http.messages import RequestHead
from arke_proxy.http1.body import check_size
from arke_proxy.http2.abuse_limits import (
    COST_OF_RESET,
    AbuseLimits,
    AbusiveFrames,
    cost_of_rejection,
    goaway_frame,
)
from arke_proxy.http2.h2_setup import new_connection, send_settings
from arke_proxy.http2.header_fields import read_request, read_trailer
from arke_proxy.http2.protocol_errors import code_name, describe
from arke_proxy.log import warn_limited
from arke_proxy.observability.request_record import refusal

_HIGH_WATER = 64 * 1024  # bytes buffered in this process for a slow client
# Bytes of responses that are queued on one connection. Above _CROWDED, backends are read only for
# streams that have nothing queued and an open flow-control window; above _MAX_QUEUED, for none.
_CROWDED = 1024 * 1024
_MAX_QUEUED = 4 * _CROWDED


class Http2Connection:
    """An asyncio protocol: makes an Http2Stream for each request, and sends frames in turn.

    `timer` holds the connection's state; in the state STREAMS requests are running.
    """

    __slots__ = (
        "_crowding",
        "_flushing",
        "_full",
        "_going_away",
        "_last_stream",
        "_streams",
        "_transport",
        "abuse_limits",
        "context",
        "h2",
        "origin",
        "peer",
        "queued",
        "sendable",
        "starved",
        "timer",
    )

    def __init__(self, context: ProxyContext) -> None:
        self.context = context
        self.h2 = new_connection()
        self.abuse_limits = AbuseLimits(context.clock())
        self.peer = ""  # the client's IP address
        self.origin: ClientOrigin
        self.timer = context.timeouts.timer(IDLE)
        self.sendable: dict[Http2Stream, None] = {}  # streams with output, in their turn's order
        self.queued = 0  # bytes of responses, of all streams together
        self.starved: set[Http2Stream] = set()  # they have nothing queued, and wait for room
        self._crowding = 0  # how many of the two limits `queued` exceeds
        self._transport: asyncio.Transport
        self._streams: dict[int, Http2Stream] = {}
        self._last_stream = 0  # the highest stream id of a request that was accepted
        self._flushing = False  # output is sent at the end of the current call
        self._full = False  # the transport has paused writing: the client is slow to read
        self._going_away = False  # GOAWAY was sent or received: new requests are refused

    # As a client connection.

    def timed_out(self) -> None:
        if self.timer.closing:
            linger_timed_out(self._transport, self.timer)
        else:
            self._close(ErrorCodes.NO_ERROR)

    def shut_down(self) -> None:
        """Send GOAWAY, and close after the last response."""
        if self._going_away or self.timer.closing:
            return
        self._going_away = True
        if self._streams:
            self._write(goaway_frame(self._last_stream, ErrorCodes.NO_ERROR))
        else:
            self._close(ErrorCodes.NO_ERROR)

    def abort(self) -> None:
        self.timer.enter(CLOSED)
        self._close_streams(FailureCode.RESPONSE_ABORTED)
        reset(self._transport)

    # Called by streams.

    def has_room(self, id_: int, queued: int) -> bool:
        """Say whether a backend may be read for this stream, which has `queued` bytes queued."""
        total = self.queued
        if total <= _CROWDED:
            return True
        return total <= _MAX_QUEUED and not queued and self.h2.local_flow_control_window(id_) > 0

    def flush(self) -> None:
        """Send frames, one of each stream in turn, while the client reads them."""
        if self._flushing or self.timer.closing:
            return
        self._flushing = True
        try:
            self._send_frames()
        finally:
            self._flushing = False
        self._share_room()
        self._update_state()

    def _send_frames(self) -> None:
        sendable = self.sendable
        blocked = 0
        while sendable and blocked < len(sendable) and not self._full:
            stream = next(iter(sendable))
            del sendable[stream]
            if stream.send_frame():
                blocked = 0
                self._write()
                if stream.has_output:
                    sendable[stream] = None
            else:
                blocked += 1
                sendable[stream] = None
        self._write()

    def _share_room(self) -> None:
        """Update the backpressure of all streams that a change of `queued` can affect."""
        crowding = (self.queued > _CROWDED) + (self.queued > _MAX_QUEUED)
        if crowding != self._crowding:
            self._crowding = crowding
            affected = list(self._streams.values())
        elif self.starved:  # a window may have opened
            affected = list(self.starved)
        else:
            return
        for stream in affected:
            stream.apply_backpressure()

    def reset(
        self,
        stream: Http2Stream,
        error: ErrorCodes,
        code: FailureCode = FailureCode.RESPONSE_ABORTED,
        detail: str = "",
    ) -> None:
        """Reset a stream. `code` and `detail` are for the record of a request that still runs."""
        with contextlib.suppress(StreamClosedError, NoSuchStreamError):
            self.h2.reset_stream(stream.id, error)
        stream.close(code, detail)
        self.flush()

    def forget(self, stream: Http2Stream) -> None:
        self.sendable.pop(stream, None)
        self.starved.discard(stream)
        self._streams.pop(stream.id, None)

    # As an asyncio protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)
        context = self.context
        peer = transport.get_extra_info("peername")
        if peer:  # None if the client has disconnected already
            self.peer = peer[0]
        tls = transport.get_extra_info("ssl_object") is not None
        self.origin = context.forwarding.origin(self.peer, tls=tls)
        context.clients.add(self)  # TlsListener or Http1Connection has checked the limits
        send_settings(self.h2)
        self.flush()

    def data_received(self, data: bytes) -> None:
        if self.timer.closing:
            return
        self._flushing = True
        try:
            self.abuse_limits.check(data, self.context.clock())
            events = self.h2.receive_data(data)
            goaway = any(isinstance(event, ConnectionTerminated) for event in events)
            if goaway:  # running requests continue, although the library closes its state
                self.h2.state_machine.state = ConnectionState.SERVER_OPEN
            self._handle(events)
            self._going_away = self._going_away or goaway
        except AbusiveFrames as abuse:
            self._fail(abuse.code, str(abuse))
        except ProtocolError as error:
            self._fail(error.error_code, describe(error))
        finally:
            self._flushing = False
        self.flush()

    def eof_received(self) -> None:
        """Close: without its sending direction the client cannot open flow-control windows."""
        if not self.timer.closing:
            self.timer.enter(LINGERING)
            self._close_streams(FailureCode.CLIENT_DISCONNECTED)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.timer.enter(CLOSED)
        self._close_streams(FailureCode.CLIENT_DISCONNECTED)
        self.context.clients.remove(self)

    def pause_writing(self) -> None:
        self._full = True
        # Otherwise replies to PING and SETTINGS would be buffered without limit.
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._full = False
        self._transport.resume_reading()
        self.flush()

    # Frames.

    def _handle(self, events: list[Event]) -> None:
        # The library has acted on all events: nothing can be sent on streams that were reset.
        reset_streams = set()
        for event in events:
            if isinstance(event, StreamReset):
                reset_streams.add(event.stream_id)
                self._on_reset(event)
        for event in events:
            if isinstance(event, DataReceived):
                self._on_data(event)
            elif isinstance(event, RequestReceived):
                if event.stream_id not in reset_streams:
                    self._on_request(event)
            elif isinstance(event, TrailersReceived):
                self._on_trailers(event)

    def _on_data(self, event: DataReceived) -> None:
        id_ = event.stream_id or 0
        stream = self._streams.get(id_)
        if not stream:  # its request is over: return the connection's credit
            self.h2.acknowledge_received_data(event.flow_controlled_length or 0, id_)
            return
        try:
            stream.receive_body(event)
        except MalformedMessage as fault:
            self._reject_body(stream, fault)

    def _on_request(self, event: RequestReceived) -> None:
        id_ = event.stream_id or 0
        if self._going_away:
            self.h2.reset_stream(id_, ErrorCodes.REFUSED_STREAM)
            return
        self._last_stream = id_
        fields = event.headers or []
        complete = event.stream_ended is not None
        with_body = (b":method", b"HEAD") not in fields
        stream = Http2Stream(self, id_, with_body=with_body, request_complete=complete)
        self._streams[id_] = stream
        if self.timer.state is not STREAMS:
            self.timer.enter(STREAMS)
        head: RequestHead | None = None
        try:
            head = read_request(fields, complete=complete)
            check_size(head.length or 0, self.context.max_body)
        except MalformedMessage as fault:
            self.abuse_limits.charge(cost_of_rejection(len(fields)))
            stream.reject(fault, head)
            return
        stream.start(head)

    def _on_trailers(self, event: TrailersReceived) -> None:
        stream = self._streams.get(event.stream_id or 0)
        if not stream:
            return
        fields = event.headers or []
        try:
            stream.receive_trailer(read_trailer(fields))
        except MalformedMessage as fault:
            self._reject_body(stream, fault, len(fields))

    def _reject_body(self, stream: Http2Stream, fault: MalformedMessage, fields: int = 0) -> None:
        self.abuse_limits.charge(cost_of_rejection(fields))
        detail = f"The request is rejected: {fault}."
        self.reset(stream, ErrorCodes.PROTOCOL_ERROR, FailureCode.MALFORMED_BODY, detail)

    def _on_reset(self, event: StreamReset) -> None:
        """Close a stream that was reset: by the client, or by the library for a stream error."""
        stream = self._streams.get(event.stream_id or 0)
        if event.remote_reset:
            if stream:
                stream.close(FailureCode.CLIENT_DISCONNECTED)
            return
        if stream:
            code = code_name(int(event.error_code or 0))
            stream.close(
                FailureCode.HTTP2_PROTOCOL_ERROR,
                f"The stream was reset because of the client's frames: {code}.",
            )
        self.abuse_limits.charge(COST_OF_RESET)

    # Closing.

    def _update_state(self) -> None:
        """Choose the state of a connection without streams, or close it."""
        if self._streams or self.timer.closing:
            return
        timer = self.timer
        if self._going_away:
            self._close(ErrorCodes.NO_ERROR)
        elif self.abuse_limits.in_header_block:
            if timer.state is not REQUEST_HEAD:
                timer.enter(REQUEST_HEAD)
        elif timer.state is not IDLE:  # PINGs do not extend its limit
            timer.enter(IDLE)

    def _fail(self, code: ErrorCodes | int, sentence: str) -> None:
        """Close the connection for a protocol error or a flood of frames."""
        context = self.context
        warn_limited(
            ("HTTP/2", self.peer), "HTTP/2 connection closed", client=self.peer, reason=sentence
        )
        error = Http2ProtocolError(f"The connection is closed: {sentence}.")
        context.recorder.record(refusal(self.peer, error, time.monotonic(), version=VERSION))
        self._close_streams(error.code, str(error))
        self.h2.clear_outbound_data_buffer()
        self._close(ErrorCodes(code))

    def _close(self, code: ErrorCodes) -> None:
        """Send GOAWAY, and close once the client has read it. No request is running."""
        self._write(goaway_frame(self._last_stream, code))
        close_gracefully(self._transport, self.timer)

    def _close_streams(self, code: FailureCode, detail: str = "") -> None:
        for stream in list(self._streams.values()):
            stream.close(code, detail)

    def _write(self, last: bytes = b"") -> None:
        """Write the library's output, and `last`; nothing if the client has disconnected."""
        data = self.h2.data_to_send() + last
        if data and not self._transport.is_closing():
            self._transport.write(data)
