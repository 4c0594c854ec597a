"""A client's HTTP/1.1 connection: keep-alive, pipelining, and the framing of responses."""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus
from typing import Final, cast

from arke_proxy.clients.http2_connection import Http2Connection
from arke_proxy.connections.client_state import (
    CLOSED,
    EXCHANGE,
    FLUSHING,
    IDLE,
    LINGERING_SLOW,
    REQUEST_HEAD,
    ClientState,
)
from arke_proxy.connections.graceful_close import close_gracefully, linger_timed_out
from arke_proxy.connections.reset import reset
from arke_proxy.connections.tls_buffer import attach
from arke_proxy.connections.write_batch import BatchedWriter
from arke_proxy.context import ProxyContext
from arke_proxy.errors import (
    BadRequest,
    FailureCode,
    MalformedMessage,
    ProxyError,
    TooManyConnections,
)
from arke_proxy.http.error_pages import accept_of
from arke_proxy.http.exchange import Exchange
from arke_proxy.http.forwarded import ClientOrigin
from arke_proxy.http.messages import RequestHead, ResponseHead
from arke_proxy.http.response_handler import ResponseHandler
from arke_proxy.http.websocket import Splice
from arke_proxy.http1 import serializer
from arke_proxy.http1.body import BodyParser, chunk, last_chunk, request_body
from arke_proxy.http1.head_buffer import HeadBuffer
from arke_proxy.http1.head_parser import parse_request
from arke_proxy.log import warn_limited
from arke_proxy.observability.request_record import refusal

_HIGH_WATER: Final = 64 * 1024  # bytes buffered in this process for a slow client
_READ_AHEAD: Final = 64 * 1024  # bytes of pipelined requests that are read during a response
_HEAD: Final = b"HEAD "
_HTTP2_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\n"  # RFC 9113, 3.4
# States whose time limit `progressed` restarts.
_LIMITED_BY_PROGRESS: Final = frozenset((EXCHANGE, FLUSHING, LINGERING_SLOW))


class Http1Connection(ResponseHandler):
    """An asyncio protocol: parses requests, and gives each to an Exchange, which answers it.

    `timer` holds the connection's state. An exchange exists in the state EXCHANGE only.
    """

    __slots__ = (
        "_advancing",
        "_any_request",
        "_body",
        "_chunked",
        "_client_full",
        "_context",
        "_exchange",
        "_half_closed",
        "_head",
        "_heads",
        "_keep_alive",
        "_reading_paused",
        "_transport",
        "_writer",
        "origin",
        "peer",
        "timer",
    )

    version = "HTTP/1.1"

    def __init__(self, context: ProxyContext) -> None:
        self._context = context
        self._transport: asyncio.Transport
        self._writer: BatchedWriter
        self.peer = ""  # the client's IP address
        self.origin: ClientOrigin
        self.timer = context.timeouts.timer(IDLE)
        self._heads = HeadBuffer()
        self._exchange: Exchange | None = None
        self._head: RequestHead  # of the running request
        self._body: BodyParser | None = None  # the parser of its body
        self._chunked = False  # the running response has chunked framing
        self._keep_alive = False  # the connection stays open after the running response
        self._any_request = False  # a request has arrived on this connection
        # I/O flags, independent of the state.
        self._advancing = False  # `_advance` is on the call stack
        self._reading_paused = False
        self._client_full = False  # the transport has paused writing: the client is slow to read
        self._half_closed = False  # the client sends no more, but may still read

    # As a ResponseHandler.

    def pause_upload(self) -> None:
        self._reading_paused = True
        self._transport.pause_reading()

    def resume_upload(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            self._transport.resume_reading()

    def progressed(self) -> None:
        if self.timer.state in _LIMITED_BY_PROGRESS:
            self.timer.restart()

    def send_interim(self, head: ResponseHead) -> None:
        if not self._head.is_1_0:  # HTTP/1.0 has no 1xx
            self._writer.write(serializer.response_head(head, b"", b""))

    def send_response(
        self, head: ResponseHead, payload: bytes, *, done: bool, trailer: bytes
    ) -> None:
        to_1_0 = self._head.is_1_0
        begin = head.begin
        if begin is None:
            framing = serializer.response_framing(head, self._head.method, to_1_0=to_1_0)
            begin = serializer.response_start(head, framing.line)
            if not head.dated:
                begin += serializer.date_line(time.time())
            self._chunked = framing.chunked
            self._keep_alive = not framing.closes and self._may_keep_alive()
            if framing.chunked:
                payload = chunk(payload)
        else:  # the usual case
            self._chunked = False
            self._keep_alive = self._may_keep_alive()
        connection = b""
        if to_1_0 or not self._keep_alive:
            connection = serializer.connection_line(keep_alive=self._keep_alive, to_1_0=to_1_0)
        self._write(b"".join((begin, connection, b"\r\n", payload)), done, trailer)

    def send_body(self, payload: bytes, *, done: bool, trailer: bytes) -> None:
        self._write(chunk(payload) if self._chunked else payload, done, trailer)

    def send_error(self, error: ProxyError, request_id: bytes = b"") -> None:
        head = self._head
        keep_alive = self._may_keep_alive() and error.status != HTTPStatus.REQUEST_TIMEOUT
        connection = serializer.connection_line(keep_alive=keep_alive, to_1_0=head.is_1_0)
        with_body = head.method != b"HEAD"
        page = self._context.error_pages.response(
            error,
            time.time(),
            connection,
            with_body=with_body,
            accept=accept_of(head.fields),
            request_id=request_id,
        )
        self._writer.write(page)
        self._end_response(keep_alive=keep_alive)

    def switch_protocols(self, head: ResponseHead, splice: Splice) -> None:
        assert head.upgrade
        self._writer.write(
            serializer.response_head(head, b"", serializer.upgrade_lines(head.upgrade))
        )
        self._exchange = None
        self.timer.enter(CLOSED)
        from_client = self._heads.rest()
        splice.start(self._writer.flushed_transport(), self.peer, from_client)
        self._context.clients.remove(self)

    def abort(self) -> None:
        """Reset the connection, so that a truncated response cannot pass for a complete one."""
        exchange, self._exchange = self._exchange, None
        self.timer.enter(CLOSED)
        if exchange:
            exchange.cancel(FailureCode.RESPONSE_ABORTED)
        reset(self._transport)

    # As a client connection.

    def timed_out(self) -> None:
        if self.timer.closing:
            linger_timed_out(self._writer.flushed_transport(), self.timer)
        elif self._exchange:
            self._exchange.timed_out()
        elif self.timer.state is REQUEST_HEAD:
            limit = self._context.timeouts.limits.request_head
            sentence = f"The request's head was not complete within {limit:g} s."
            self._reject(BadRequest(sentence, 408), with_body=self._response_has_body())
        else:
            self._close()

    def shut_down(self) -> None:
        if not self._exchange and not self.timer.closing and self._heads.empty:
            self._close()

    # As an asyncio protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)
        context = self._context
        self._writer = BatchedWriter(context.write_batch, self._transport)
        peer = transport.get_extra_info("peername")
        if peer:  # None if the client has disconnected already
            self.peer = peer[0]
        try:
            context.clients.check_room(self.peer)
        except TooManyConnections as error:
            self._turn_away(error)
            return
        tls = transport.get_extra_info("ssl_object") is not None
        self.origin = context.forwarding.origin(self.peer, tls=tls)
        context.clients.add(self)

    def data_received(self, data: bytes) -> None:
        if self.timer.closing:
            return
        exchange = self._exchange
        if exchange and not exchange.uploaded:
            self._receive_body(exchange, data)
            return
        if not exchange and not self._client_full:
            self._advance(data)
            return
        self._heads.push(data)
        if len(self._heads) > _READ_AHEAD:
            self.pause_upload()

    def eof_received(self) -> bool:
        self._half_closed = True
        # The loop may close the transport after this call: pass it the pending data first.
        self._writer.flush()
        exchange = self._exchange
        if exchange and not exchange.uploaded:
            exchange.cancel()
            self.abort()
        if not self._transport.can_write_eof():  # TLS has no half-closed connections
            return False
        return not self.timer.closing and (exchange is not None or self._client_full)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.timer.enter(CLOSED)
        if self._exchange:
            self._exchange.cancel()
            self._exchange = None
        self._context.clients.remove(self)

    def pause_writing(self) -> None:
        self._client_full = True
        if self._exchange:
            self._exchange.on_client_full()

    def resume_writing(self) -> None:
        self._client_full = False
        self.progressed()
        if self._exchange:
            self._exchange.on_client_ready()
        elif not self.timer.closing:
            self._resume_reading()
            self._advance()

    # Requests.

    def _advance(self, data: bytes = b"") -> None:
        """Start the requests that have arrived, each after the response to the one before."""
        self._advancing = True
        try:
            raw = self._heads.take(data)
            while raw is not None:
                self._start_request(raw)
                if self._exchange or self._client_full or self.timer.closing:
                    return
                raw = self._heads.pull()
            self._wait_for_head()
        except MalformedMessage as fault:
            self._reject(_rejection(fault), with_body=self._response_has_body())
        finally:
            self._advancing = False

    def _start_request(self, raw: bytes) -> None:
        if raw == _HTTP2_PREFACE and not self._any_request:
            self._hand_over_to_http2(raw)
            return
        self._any_request = True
        head: RequestHead | None = None
        try:
            head = parse_request(raw)
            body = request_body(head, self._context.max_body)
        except MalformedMessage as fault:
            self._reject(_rejection(fault), head, with_body=not raw.startswith(_HEAD))
            return
        self._head = head
        self._body = body
        now = self._context.clock()
        exchange = self._exchange = Exchange(self, head, self._context, now)
        self.timer.enter_at(EXCHANGE, now)
        if body and (data := self._heads.rest()):
            self._receive_body(exchange, data)
        if self._is_current(exchange):
            exchange.start(now)

    def _is_current(self, exchange: Exchange) -> bool:
        """Say whether this exchange still runs. (mypyc treats an inline check as always true.)"""
        return self._exchange is exchange

    def _hand_over_to_http2(self, raw: bytes) -> None:
        """Continue as HTTP/2: the client knows that this proxy speaks it ("prior knowledge")."""
        data = raw + self._heads.rest()
        self.timer.enter(CLOSED)
        self._context.clients.hand_over(self)
        client = Http2Connection(self._context)
        transport = self._writer.flushed_transport()
        attach(transport, client)
        client.connection_made(transport)
        client.data_received(data)

    def _receive_body(self, exchange: Exchange, data: bytes) -> None:
        self.progressed()
        body = self._body
        assert body
        try:
            payload, rest = body.feed(data)
        except MalformedMessage as fault:
            error = _rejection(fault)
            exchange.reject(error)
            if exchange.response_started:
                self.abort()
            else:
                self._reject(error, self._head, with_body=self._head.method != b"HEAD")
            return
        if payload or body.done:
            exchange.upload(payload, done=body.done, trailer=body.trailer)
        if rest:
            self._heads.push(rest)

    def _wait_for_head(self) -> None:
        """Wait for the next request; close, if there will be none."""
        started = not self._heads.empty
        if self._half_closed or (self._context.clients.draining and not started):
            self._close()
            return
        state: ClientState = REQUEST_HEAD if started else IDLE
        # More bytes of a head do not extend its limit; empty lines do not extend the idle limit.
        if self.timer.state is not state:
            self.timer.enter(state)

    # Responses.

    def _may_keep_alive(self) -> bool:
        exchange = self._exchange
        assert exchange
        return self._head.keep_alive and exchange.uploaded and not self._context.clients.draining

    def _write(self, data: bytes, done: bool, trailer: bytes) -> None:
        if done and self._chunked:
            data += last_chunk(trailer)
        self._writer.write(data)
        if done:
            self._end_response(keep_alive=self._keep_alive)
        else:
            self.progressed()

    def _end_response(self, *, keep_alive: bool) -> None:
        """Continue after a complete response: with the next request, or by closing."""
        self._exchange = None
        if not keep_alive:
            self._close()
            return
        if self._reading_paused:
            self._resume_reading()
        if self._client_full:
            self.timer.enter(FLUSHING)
        elif not self._advancing:
            if self._heads.empty:
                self._wait_for_head()
            else:
                self._advance()

    def _resume_reading(self) -> None:
        if len(self._heads) <= _READ_AHEAD:
            self.resume_upload()

    def _response_has_body(self) -> bool:
        """Say whether a response to the incomplete head may have a body: not for HEAD."""
        return not self._heads.begins_with(_HEAD)

    def _reject(
        self, error: BadRequest, head: RequestHead | None = None, *, with_body: bool
    ) -> None:
        """Answer a malformed or late request, and close: where the next one starts is unknown."""
        if not self._exchange:  # an exchange records its request itself
            self._context.recorder.record(refusal(self.peer, error, time.monotonic(), head))
        self._exchange = None
        accept = accept_of(head.fields) if head else b""
        pages = self._context.error_pages
        now = time.time()
        self._writer.write(
            pages.response(error, now, serializer.CLOSE, with_body=with_body, accept=accept)
        )
        self._close()

    # Closing.

    def _turn_away(self, error: TooManyConnections) -> None:
        """Answer 503 and close at once: lingering would keep a descriptor in use."""
        self.timer.enter(CLOSED)
        warn_limited(TooManyConnections, "client rejected", reason=str(error))
        self._context.recorder.record(refusal(self.peer, error, time.monotonic()))
        pages = self._context.error_pages
        self._writer.write(pages.response(error, time.time(), serializer.CLOSE, with_body=True))
        self._writer.flushed_transport().close()

    def _close(self) -> None:
        """Close after the client has read what was written."""
        self._heads.rest()
        self._reading_paused = False
        transport = self._writer.flushed_transport()
        close_gracefully(transport, self.timer, client_closed=self._half_closed)


def _rejection(fault: MalformedMessage) -> BadRequest:
    return BadRequest(f"The request is rejected: {fault}.", fault.status)
