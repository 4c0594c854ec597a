"""A client's connection: one request after another, each answered before the next is begun."""

from __future__ import annotations

import asyncio
import math
import time
from http import HTTPStatus
from typing import Final, cast

from arke_proxy.clients.graceful_close import end_after_reading, unread
from arke_proxy.clients.http2_connection import Http2Client
from arke_proxy.clients.tls_buffer import attach
from arke_proxy.connections.deadlines import Wait
from arke_proxy.connections.hub import Hub
from arke_proxy.connections.reset import reset
from arke_proxy.connections.write_batch import Outlet
from arke_proxy.errors import BadRequest, Exhausted, Malformed, ProxyError
from arke_proxy.http.error_pages import accept_of, own_response
from arke_proxy.http.exchange import Exchange
from arke_proxy.http.forwarded import Origin
from arke_proxy.http.messages import RequestHead, ResponseHead
from arke_proxy.http.response_handler import Requester
from arke_proxy.http.websocket import Splice
from arke_proxy.http1 import serializer as writing
from arke_proxy.http1.body import Body, chunk, last_chunk, request_body
from arke_proxy.http1.head_buffer import HeadBuffer
from arke_proxy.http1.head_parser import parse_request
from arke_proxy.observability.request_record import refusal

_HIGH_WATER: Final = 64 * 1024  # bytes waiting in this process for a slow client
_AHEAD: Final = 64 * 1024  # bytes of further requests read while one is answered
_HEAD: Final = b"HEAD "
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\n"  # how HTTP/2 begins (RFC 9113, 3.4)


class Client(Requester):
    """A protocol of the loop's: reads requests, and hands each to an Exchange, which answers."""

    __slots__ = (
        "_advancing",
        "_begun",
        "_body",
        "_chunks",
        "_exchange",
        "_full",
        "_half_closed",
        "_head",
        "_heads",
        "_hub",
        "_keep_alive",
        "_leaving",
        "_out",
        "_paused",
        "_transport",
        "_wait",
        "due",
        "origin",
        "peer",
    )

    version = "HTTP/1.1"

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._transport: asyncio.Transport
        self._out: Outlet
        self.peer = ""  # its address
        self.origin: Origin
        self._heads = HeadBuffer()
        self._exchange: Exchange | None = None
        self._head: RequestHead  # of the request that is being answered
        self._body: Body | None = None  # and the reader of its body
        self._chunks = False  # its answer's body goes out in chunks
        self._keep_alive = False  # the connection goes on after the answer
        self._wait: Wait | None = None  # what it waits for
        self.due = math.inf
        self._advancing = False
        self._paused = False
        self._begun = False  # a request has come
        self._full = False  # the client is slow to read
        self._half_closed = False  # the client sends no more, and may still read
        self._leaving = False  # everything has been said; what still comes is not read

    # For the exchange.

    def pause(self) -> None:
        self._paused = True
        self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    def moved(self) -> None:
        """Note that the exchange is making progress."""
        if self._wait is self._hub.running:
            self._put_under(self._hub.running)

    def interim(self, head: ResponseHead) -> None:
        if not self._head.is_1_0:  # which has no 1xx
            self._out.write(writing.response_head(head, b"", b""))

    def answer(self, head: ResponseHead, payload: bytes, *, done: bool, trailer: bytes) -> None:
        to_1_0 = self._head.is_1_0
        begin = head.begin
        if begin is None:
            framing = writing.response_framing(head, self._head.method, to_1_0=to_1_0)
            begin = writing.response_start(head, framing.line)
            if not head.dated:
                begin += writing.date_line(time.time())
            self._chunks = framing.chunks
            self._keep_alive = not framing.closes and self._may_keep_alive()
            if framing.chunks:
                payload = chunk(payload)
        else:  # nearly always
            self._chunks = False
            self._keep_alive = self._may_keep_alive()
        connection = b""
        if to_1_0 or not self._keep_alive:
            connection = writing.connection_line(keep_alive=self._keep_alive, to_1_0=to_1_0)
        self._write(b"".join((begin, connection, b"\r\n", payload)), done, trailer)

    def piece(self, payload: bytes, *, done: bool, trailer: bytes) -> None:
        self._write(chunk(payload) if self._chunks else payload, done, trailer)

    def fail(self, error: ProxyError) -> None:
        head = self._head
        keep_alive = self._may_keep_alive() and error.status != HTTPStatus.REQUEST_TIMEOUT
        connection = writing.connection_line(keep_alive=keep_alive, to_1_0=head.is_1_0)
        with_body = head.method != b"HEAD"
        accept = accept_of(head.fields)
        page = own_response(error, time.time(), connection, with_body=with_body, accept=accept)
        self._out.write(page)
        self._finish(keep_alive=keep_alive)

    def switch(self, head: ResponseHead, splice: Splice) -> None:
        assert head.upgrade
        self._out.write(writing.response_head(head, b"", writing.switching(head.upgrade)))
        self._exchange = None
        self._leaving = True
        self._put_under(None)
        early = self._heads.rest()
        splice.join(self._out.transport(), self.peer, early)
        self._hub.went(self)

    def cut(self) -> None:
        """End the connection such that what was sent cannot pass for a whole answer."""
        exchange, self._exchange = self._exchange, None
        self._leaving = True
        if exchange:
            exchange.abandon("cut off")
        reset(self._transport)

    # For the server.

    def expired(self) -> None:
        """Act on the deadline that has just passed."""
        wait = self._wait
        self._put_under(None)
        if self._leaving:
            self._stop_leaving(wait)
        elif self._exchange:
            self._exchange.late()
        elif wait is self._hub.in_head:
            sentence = f"No whole head came within {self._hub.times.head:g} s."
            self._refuse(BadRequest(sentence, 408), with_body=self._wants_body())
        else:
            self._leave()

    def part(self) -> None:
        """Close if nothing is going on."""
        if not self._exchange and not self._leaving and self._heads.empty:
            self._leave()

    # For the loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)
        self._out = Outlet(self._hub.turn, self._transport)
        peer = transport.get_extra_info("peername")
        if peer:  # none if it has gone already
            self.peer = peer[0]
        try:
            self._hub.check_room(self.peer)
        except Exhausted as error:
            self._turn_away(error)
            return
        tls = transport.get_extra_info("ssl_object") is not None
        self.origin = self._hub.forwarding.origin(self.peer, tls=tls)
        self._hub.came(self)
        self._put_under(self._hub.idle)

    def data_received(self, data: bytes) -> None:
        if self._leaving:
            return
        exchange = self._exchange
        if exchange and not exchange.uploaded:
            self._receive_body(exchange, data)
            return
        if not exchange and not self._full:
            self._advance(data)
            return
        self._heads.push(data)
        if len(self._heads) > _AHEAD:
            self.pause()

    def eof_received(self) -> bool:
        self._half_closed = True
        self._out.flush()  # the loop may close the connection, and knows only what it was given
        exchange = self._exchange
        if exchange and not exchange.uploaded:
            exchange.abandon()
            self.cut()
        if not self._transport.can_write_eof():  # TLS has no half of a connection
            return False
        return not self._leaving and (exchange is not None or self._full)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._leaving = True
        self._put_under(None)
        if self._exchange:
            self._exchange.abandon()
            self._exchange = None
        self._hub.went(self)

    def pause_writing(self) -> None:
        self._full = True
        if self._exchange:
            self._exchange.client_full()

    def resume_writing(self) -> None:
        self._full = False
        self.moved()
        if self._exchange:
            self._exchange.client_ready()
        elif not self._leaving:
            self._read_on()
            self._advance()

    # Within.

    def _advance(self, data: bytes = b"") -> None:
        """Begin what requests have arrived, each when the one before it is answered."""
        self._advancing = True
        try:
            raw = self._heads.take(data)
            while raw is not None:
                self._begin(raw)
                if self._exchange or self._leaving or self._full:
                    return
                raw = self._heads.pull()
            self._wait_for_head()
        except Malformed as fault:
            self._refuse(_refusal(fault), with_body=self._wants_body())
        finally:
            self._advancing = False

    def _begin(self, raw: bytes) -> None:
        if raw == _PREFACE and not self._begun:
            self._hand_over(raw)
            return
        self._begun = True
        head: RequestHead | None = None
        try:
            head = parse_request(raw)
            body = request_body(head, self._hub.most_body)
        except Malformed as fault:
            self._refuse(_refusal(fault), head, with_body=not raw.startswith(_HEAD))
            return
        self._head = head
        self._body = body
        now = self._hub.clock()
        exchange = self._exchange = Exchange(self, head, self._hub, now)
        self._wait = running = self._hub.running
        self.due = now + running.seconds
        if body and (data := self._heads.rest()):
            self._receive_body(exchange, data)
        if self._serves(exchange):
            exchange.start(now)

    def _serves(self, exchange: Exchange) -> bool:
        """Whether it still does. (A compiler that sees who set it takes that for granted.)"""
        return self._exchange is exchange

    def _hand_over(self, raw: bytes) -> None:
        """Leave a client who knows that this proxy speaks HTTP/2 to who does."""
        early = raw + self._heads.rest()
        self._leaving = True
        self._put_under(None)
        self._hub.hands_over(self)
        client = Http2Client(self._hub)
        transport = self._out.transport()
        attach(transport, client)
        client.connection_made(transport)
        client.data_received(early)

    def _receive_body(self, exchange: Exchange, data: bytes) -> None:
        self.moved()
        body = self._body
        assert body
        try:
            payload, rest = body.feed(data)
        except Malformed as fault:
            error = _refusal(fault)
            exchange.refuse(error)
            if exchange.told:
                self.cut()
            else:
                self._refuse(error, self._head, with_body=self._head.method != b"HEAD")
            return
        if payload or body.done:
            exchange.upload(payload, done=body.done, trailer=body.trailer)
        if rest:
            self._heads.push(rest)

    def _may_keep_alive(self) -> bool:
        exchange = self._exchange
        assert exchange
        return self._head.keep_alive and exchange.uploaded and not self._hub.draining

    def _write(self, data: bytes, done: bool, trailer: bytes) -> None:
        if done and self._chunks:
            data += last_chunk(trailer)
        self._out.write(data)
        if done:
            self._finish(keep_alive=self._keep_alive)
        else:
            self.moved()

    def _finish(self, *, keep_alive: bool) -> None:
        """Go on after an answer that was sent whole."""
        self._exchange = None
        if not keep_alive:
            self._leave()
            return
        if self._paused:
            self._read_on()
        if self._full:
            self._put_under(self._hub.running)  # to read it
        elif not self._advancing:
            if self._heads.empty:
                self._wait_for_head()
            else:
                self._advance()

    def _read_on(self) -> None:
        if len(self._heads) <= _AHEAD:
            self.resume()

    def _wait_for_head(self) -> None:
        begun = not self._heads.empty
        if self._half_closed or (self._hub.draining and not begun):
            self._leave()
        elif begun:
            if self._wait is not self._hub.in_head:  # the time counts from the first byte
                self._put_under(self._hub.in_head)
        elif self._wait is not self._hub.idle:  # which empty lines do not extend
            self._put_under(self._hub.idle)

    def _wants_body(self) -> bool:
        """Look at what has come of a head whether its answer may have a body."""
        return not self._heads.begins_with(_HEAD)

    def _refuse(
        self, error: BadRequest, head: RequestHead | None = None, *, with_body: bool
    ) -> None:
        """Answer what is no request. Where the next one would begin cannot be known."""
        if not self._exchange:  # which would have noted its own record
            self._hub.recorder.record(refusal(self.peer, error, time.monotonic(), head))
        self._exchange = None
        accept = accept_of(head.fields) if head else b""
        self._out.write(
            own_response(error, time.time(), writing.CLOSE, with_body=with_body, accept=accept)
        )
        self._leave()

    def _turn_away(self, error: Exhausted) -> None:
        """Close at once what would take the descriptors that answering the others needs."""
        self._leaving = True
        self._hub.complaints.warn(Exhausted, str(error))
        self._hub.recorder.record(refusal(self.peer, error, time.monotonic()))
        self._out.write(own_response(error, time.time(), writing.CLOSE, with_body=True))
        self._out.transport().close()

    def _leave(self) -> None:
        """Close once the client has read what was written."""
        self._leaving = True
        self._heads.rest()
        if self._half_closed:
            self._out.transport().close()
        else:
            self._paused = False
            end_after_reading(self._out.transport())
        self._put_under(self._hub.lingering)

    def _stop_leaving(self, wait: Wait | None) -> None:
        if not unread(self._out.transport()):
            self._transport.abort()
        elif wait is self._hub.lingering:
            self._put_under(self._hub.running)  # the client is slow, not deaf
        else:
            self.cut()

    def _put_under(self, wait: Wait | None) -> None:
        self._wait = wait
        self.due = math.inf if wait is None else self._hub.clock() + wait.seconds


def _refusal(fault: Malformed) -> BadRequest:
    return BadRequest(f"The request is refused: {fault}.", fault.status)
