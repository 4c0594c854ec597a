"""One request of an HTTP/2 connection: its body as it comes, its answer as windows allow."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Final

from h2.errors import ErrorCodes
from h2.events import DataReceived

from arke_proxy.errors import BadRequest, Malformed, ProxyError
from arke_proxy.http.date import http_date
from arke_proxy.http.error_pages import accept_of, own_message
from arke_proxy.http.exchange import Exchange
from arke_proxy.http.header_fields import Field
from arke_proxy.http.messages import RequestHead, ResponseHead
from arke_proxy.http.response_handler import Requester
from arke_proxy.http.websocket import Splice
from arke_proxy.http1.body import check_size
from arke_proxy.http2.abuse_limits import MAX_FRAME
from arke_proxy.http2.header_fields import own_fields, response_fields, trailer_fields
from arke_proxy.observability.request_record import refusal

if TYPE_CHECKING:
    from arke_proxy.clients.http2_connection import Http2Client

VERSION: Final = "HTTP/2.0"  # as a log writes it
_HIGH_WATER = 64 * 1024  # octets of an answer that wait here for a slow client
_LOW_WATER = 16 * 1024
# Octets of a request that are still read behind its answer. Whoever sends more than a window has
# read the answer, behind which the credit for it came.
_MOST_UNWANTED = 1024 * 1024


class Stream(Requester):
    """A Requester. What it writes waits until its connection asks for it."""

    __slots__ = (
        "_answered",
        "_client",
        "_closed",
        "_ended",
        "_finished",
        "_full",
        "_head",
        "_owed",
        "_paused",
        "_received",
        "_trailer",
        "_unsent",
        "_unsent_size",
        "_unwanted",
        "exchange",
        "id",
        "origin",
        "peer",
        "with_body",
    )

    version = VERSION

    def __init__(self, client: Http2Client, id_: int, *, with_body: bool, ended: bool) -> None:
        self._client = client
        self.id = id_
        self.peer = client.peer
        self.origin = client.origin
        self.with_body = with_body  # its answer may have one: it was not asked for by HEAD
        self._head: RequestHead | None = None
        self.exchange: Exchange | None = None
        self._ended = ended  # the client has sent the whole request
        self._received = 0  # octets of its body
        self._paused = False  # the backend is slow to take the body
        self._owed = 0  # octets of credit that are given back when it has
        self._unsent: deque[memoryview] = deque()
        self._unsent_size = 0
        self._finished = False  # nothing is to come behind what is unsent
        self._trailer = b""
        self._answered = False  # wholly, before the client has sent the whole request
        self._unwanted = 0  # octets that came when the answer was here
        self._closed = False
        self._full = False  # the exchange knows that the client is slow

    @property
    def unfinished(self) -> bool:
        """Whether there is something to send, now that the last frame is sent."""
        over = self._closed or self._answered
        return self._unsent_size > 0 or (self._finished and not over)

    # From the connection.

    def begin(self, head: RequestHead) -> None:
        self._head = head
        hub = self._client.hub
        now = hub.clock()
        self.exchange = exchange = Exchange(self, head, hub, now)
        self.moved()
        self.heed()
        exchange.start(now)

    def receive(self, event: DataReceived) -> None:
        """Take a piece of the body; its credit goes back once the backend has room for more.

        Raises Malformed if the body is not as long as it was said to be.
        """
        exchange = self.exchange
        ended = self._ended = event.stream_ended is not None
        self._owed += event.flow_controlled_length or 0
        data = event.data or b""
        if not exchange:
            self._discard(len(data))
            return
        self._received += len(data)
        self._check_length(ended=ended)
        if not exchange.uploaded and (data or ended):
            self.moved()
            try:
                check_size(self._received, self._client.hub.most_body)
            except Malformed as fault:
                self.refuse(fault)
                return
            exchange.upload(data, done=ended, trailer=b"")
        if ended or not self._paused:
            self._pay()

    def receive_trailer(self, lines: bytes) -> None:
        """End the body. Raises Malformed if it is shorter than it was said to be."""
        self._ended = True
        exchange = self.exchange
        if not exchange:
            self._discard(0)
            return
        self._check_length(ended=True)
        if not exchange.uploaded:
            self.moved()
            exchange.upload(b"", done=True, trailer=lines)

    def refuse(self, fault: Malformed, head: RequestHead | None = None) -> None:
        """Answer what is no request, unless it has been answered; `head`, if it has one."""
        error = BadRequest(f"The request is refused: {fault}.", fault.status)
        if exchange := self.exchange:
            exchange.refuse(error)
            if exchange.told:
                self.cut()
                return
        else:
            self._head = head
            record = refusal(self.peer, error, time.monotonic(), head, version=self.version)
            self._client.hub.recorder.record(record)
        self.fail(error)

    def send(self) -> bool:
        """Send one frame, if there is one and the windows allow; False if not."""
        h2 = self._client.h2
        if self._unsent:
            window = h2.local_flow_control_window(self.id)
            if window <= 0:
                return False
            self._send_data(min(window, MAX_FRAME))
        elif not self._finished:
            return False
        elif self._trailer:
            h2.send_headers(self.id, trailer_fields(self._trailer), end_stream=True)
            self._over()
        else:
            h2.end_stream(self.id)
            self._over()
        return True

    def heed(self) -> None:
        """Have the backend wait, or go on, by how much waits here and on the whole connection."""
        exchange = self.exchange
        if not exchange:
            return
        waiting = self._unsent_size
        full = waiting > (_LOW_WATER if self._full else _HIGH_WATER)
        full = full or not self._client.has_room(self.id, waiting)
        if full and not waiting:
            self._client.hungry.add(self)
        else:
            self._client.hungry.discard(self)
        if full is not self._full:
            self._full = full
            if full:
                exchange.client_full()
            else:
                self.moved()  # only now the backend can be heard
                exchange.client_ready()

    def end(self, why: str, detail: str = "") -> None:
        """Forget the request; the client hears no more of it. `detail` says in a sentence `why`."""
        exchange, self.exchange = self.exchange, None
        self._drop()
        if exchange:
            exchange.abandon(why, detail)

    def expired(self) -> None:
        """Act on the deadline that has just passed."""
        if self.exchange:
            self.exchange.late()
        elif self._answered:
            self._client.reset(self, ErrorCodes.NO_ERROR, "")
        else:  # all of the answer is here, and the client does not read it
            self._client.reset(self, ErrorCodes.CANCEL, "client stood still")

    # From the exchange.

    def interim(self, head: ResponseHead) -> None:
        self._client.h2.send_headers(self.id, response_fields(head))
        self._client.flush()

    def answer(self, head: ResponseHead, payload: bytes, *, done: bool, trailer: bytes) -> None:
        fields = response_fields(head)
        if not head.dated:
            fields.append((b"date", http_date(time.time())))
        self._begin_answer(fields, payload, done=done, trailer=trailer)

    def piece(self, payload: bytes, *, done: bool, trailer: bytes) -> None:
        self.moved()
        if payload:
            self._unsent.append(memoryview(payload))
            self._unsent_size += len(payload)
            self._client.held += len(payload)
        if done:
            self.exchange = None
            self._finished = True
            self._trailer = trailer
        self._client.waiting[self] = None
        self._client.flush()
        self.heed()

    def fail(self, error: ProxyError) -> None:
        accept = accept_of(self._head.fields) if self._head else b""
        fields, body = own_message(error, time.time(), accept)
        payload = body if self.with_body else b""
        self._begin_answer(own_fields(error.status, fields), payload, done=True, trailer=b"")

    def switch(self, head: ResponseHead, splice: Splice) -> None:  # noqa: ARG002 — no request gets here
        raise AssertionError("no request of HTTP/2 asks for an upgrade")

    def cut(self) -> None:
        self.exchange = None
        self._client.reset(self, ErrorCodes.INTERNAL_ERROR, "cut off")

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._pay()
        self._client.flush()

    def moved(self) -> None:
        hub = self._client.hub
        hub.streams.start(self, hub.clock())

    # Within.

    def _check_length(self, *, ended: bool) -> None:
        """Raise Malformed for a body that is not as long as it says (RFC 9113, 8.1.1).

        A backend would take what comes next, of another client, for the rest of a shorter one.
        """
        length = self._head.length if self._head else None
        if length is not None and (length < self._received or (ended and length > self._received)):
            raise Malformed("its body is not as long as it says")

    def _begin_answer(
        self, fields: list[Field], payload: bytes, *, done: bool, trailer: bytes
    ) -> None:
        whole = done and not payload and not trailer
        self._client.h2.send_headers(self.id, fields, end_stream=whole)
        if whole:
            self.exchange = None
            self._over()
            self._client.flush()
        else:
            self.piece(payload, done=done, trailer=trailer)

    def _send_data(self, most: int) -> None:
        client = self._client
        first = self._unsent[0]
        if len(first) <= most:
            self._unsent.popleft()
        else:
            self._unsent[0] = first[most:]
            first = first[:most]
        wanted = min(self._unsent_size, MAX_FRAME)
        self._unsent_size -= len(first)
        client.held -= len(first)
        last = self._finished and not self._unsent and not self._trailer
        client.h2.send_data(self.id, bytes(first), end_stream=last)
        client.guard.sent(len(first), wanted)
        self.moved()
        if last:
            self._over()
        elif self._full:
            self.heed()

    def _pay(self) -> None:
        owed, self._owed = self._owed, 0
        if owed:
            self._client.h2.acknowledge_received_data(owed, self.id)

    def _over(self) -> None:
        """End after a whole answer. What still comes of the request is read, and for a moment only.

        At once would not do: if the client is still sending, a reset would have it throw away
        what it has not read of the answer.
        """
        if self._ended:
            self._drop()
            return
        hub = self._client.hub
        hub.streams.stop(self)
        hub.answered.start(self, hub.clock())
        self._answered = True
        self._client.hungry.discard(self)
        self._pay()

    def _discard(self, size: int) -> None:
        """Take what nobody waits for any more: the answer is here, if not sent."""
        self._unwanted += size
        if not self._answered:
            self._pay()
        elif self._ended:
            self._drop()
        elif self._unwanted > _MOST_UNWANTED:
            self._client.reset(self, ErrorCodes.NO_ERROR, "")
        else:
            self._pay()

    def _drop(self) -> None:
        self._closed = True
        hub = self._client.hub
        (hub.answered if self._answered else hub.streams).stop(self)
        self._unsent.clear()
        self._client.held -= self._unsent_size
        self._unsent_size = 0
        self._pay()
        self._client.forget(self)
