"""A client's connection that speaks HTTP/2: many requests at once, each a stream."""

from __future__ import annotations

import asyncio
import contextlib
import math
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

from arke_proxy.clients.graceful_close import end_after_reading, unread
from arke_proxy.clients.http2_stream import VERSION, Stream
from arke_proxy.connections.deadlines import Wait
from arke_proxy.connections.hub import Hub
from arke_proxy.connections.reset import reset
from arke_proxy.errors import BadFrames, Malformed
from arke_proxy.http.forwarded import Origin
from arke_proxy.http.messages import RequestHead
from arke_proxy.http1.body import check_size
from arke_proxy.http2.abuse_limits import COST_OF_RESET, Abuse, Guard, cost_of_refusal, goaway
from arke_proxy.http2.h2_setup import begin, new_connection
from arke_proxy.http2.header_fields import read_request, read_trailer
from arke_proxy.observability.request_record import refusal

_HIGH_WATER = 64 * 1024  # octets waiting in this process for a slow client
_CROWDED = 1024 * 1024  # octets of answers that wait; more are read only for streams without any
_MOST_HELD = 4 * _CROWDED  # from here on, for none


class Http2Client:
    """A protocol of the loop's: a stream for each request, whose answers are sent by turns."""

    __slots__ = (
        "_busy",
        "_crowd",
        "_full",
        "_last",
        "_leaving",
        "_parting",
        "_streams",
        "_transport",
        "_wait",
        "due",
        "guard",
        "h2",
        "held",
        "hub",
        "hungry",
        "origin",
        "peer",
        "waiting",
    )

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.h2 = new_connection()
        self.guard = Guard(hub.clock())
        self.peer = ""  # the client's address
        self.origin: Origin  # what backends are told about it
        self.waiting: dict[Stream, None] = {}  # those with something to send, in turn
        self.held = 0  # octets of answers, of all streams together
        self._crowd = 0  # how many of the bounds on that are passed
        self.hungry: set[Stream] = set()  # those that wait for room, though they hold nothing
        self._transport: asyncio.Transport
        self._streams: dict[int, Stream] = {}
        self._last = 0  # the highest stream that was begun
        self._wait: Wait | None = None  # while there are no streams
        self.due = math.inf
        self._busy = False  # what there is to send will be sent before long
        self._full = False  # the client is slow to read
        self._parting = False  # it knows that no more requests are taken
        self._leaving = False  # everything has been said; what still comes is not read

    # For the server.

    def expired(self) -> None:
        wait = self._wait
        self._put_under(None)
        if not self._leaving:
            self._leave(ErrorCodes.NO_ERROR)
        elif not unread(self._transport):
            self._transport.abort()
        elif wait is self.hub.lingering:
            self._put_under(self.hub.running)  # the client is slow, not deaf
        else:
            self.cut()

    def part(self) -> None:
        """Take no more requests, and close after the last answer."""
        if self._leaving or self._parting:
            return
        self._parting = True
        if self._streams:
            self._write(goaway(self._last, ErrorCodes.NO_ERROR))
        else:
            self._leave(ErrorCodes.NO_ERROR)

    def cut(self) -> None:
        self._leaving = True
        self._end_streams("cut off")
        reset(self._transport)

    # For its streams.

    def has_room(self, id_: int, waiting: int) -> bool:
        """Whether a backend may be read for this stream, in which so many octets wait."""
        held = self.held
        if held <= _CROWDED:
            return True
        return held <= _MOST_HELD and not waiting and self.h2.local_flow_control_window(id_) > 0

    def flush(self) -> None:
        """Send what there is, a frame of each stream in turn, while the client takes it."""
        if self._busy or self._leaving:
            return
        self._busy = True
        try:
            self._send_in_turn()
        finally:
            self._busy = False
        self._share_room()
        self._look_around()

    def _send_in_turn(self) -> None:
        waiting = self.waiting
        blocked = 0
        while waiting and blocked < len(waiting) and not self._full:
            stream = next(iter(waiting))
            del waiting[stream]
            if stream.send():
                blocked = 0
                self._write()
                if stream.unfinished:
                    waiting[stream] = None
            else:
                blocked += 1
                waiting[stream] = None
        self._write()

    def _share_room(self) -> None:
        """Have heed who can be concerned: all, or those for whom a window may have opened."""
        crowd = (self.held > _CROWDED) + (self.held > _MOST_HELD)
        if crowd != self._crowd:
            self._crowd = crowd
            concerned = list(self._streams.values())
        elif self.hungry:
            concerned = list(self.hungry)
        else:
            return
        for stream in concerned:
            stream.heed()

    def reset(self, stream: Stream, code: ErrorCodes, why: str, detail: str = "") -> None:
        """End a stream before its time."""
        with contextlib.suppress(StreamClosedError, NoSuchStreamError):
            self.h2.reset_stream(stream.id, code)
        stream.end(why, detail)
        self.flush()

    def forget(self, stream: Stream) -> None:
        self.waiting.pop(stream, None)
        self.hungry.discard(stream)
        self._streams.pop(stream.id, None)

    # For the loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)
        hub = self.hub
        peer = transport.get_extra_info("peername")
        if peer:  # none if it has gone already
            self.peer = peer[0]
        tls = transport.get_extra_info("ssl_object") is not None
        self.origin = hub.forwarding.origin(self.peer, tls=tls)
        hub.came(self)  # from who has looked for room: a handshake, or a Client of HTTP/1
        begin(self.h2)
        self.flush()

    def data_received(self, data: bytes) -> None:
        if self._leaving:
            return
        self._busy = True
        try:
            self.guard.look(data, self.hub.clock())
            events = self.h2.receive_data(data)
            goodbyes = [event for event in events if isinstance(event, ConnectionTerminated)]
            if goodbyes:  # answers may go on, although the library has closed
                self.h2.state_machine.state = ConnectionState.SERVER_OPEN
            self._take(events)
            self._parting = self._parting or bool(goodbyes)
        except Abuse as abuse:
            self._break(abuse.code, str(abuse))
        except ProtocolError as error:
            self._break(error.error_code, str(error))
        finally:
            self._busy = False
        self.flush()

    def eof_received(self) -> None:
        """Close: nothing more can be asked for, and no window opened."""
        if not self._leaving:
            self._leaving = True
            self._end_streams("client left")
            self._put_under(self.hub.lingering)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._leaving = True
        self._put_under(None)
        self._end_streams("client left")
        self.hub.went(self)

    def pause_writing(self) -> None:
        self._full = True
        # Its pings and settings would be answered without end.
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._full = False
        self._transport.resume_reading()
        self.flush()

    # Within.

    def _take(self, events: list[Event]) -> None:
        # The library has acted on all of them already: nothing more can be sent to what was reset.
        gone = set()
        for event in events:
            if isinstance(event, StreamReset):
                gone.add(event.stream_id)
                self._lose(event)
        for event in events:
            if isinstance(event, DataReceived):
                self._receive(event)
            elif isinstance(event, RequestReceived):
                if event.stream_id not in gone:
                    self._begin(event)
            elif isinstance(event, TrailersReceived):
                self._end_body(event)

    def _receive(self, event: DataReceived) -> None:
        id_ = event.stream_id or 0
        stream = self._streams.get(id_)
        if not stream:  # of a request that is over; the credit is for the connection
            self.h2.acknowledge_received_data(event.flow_controlled_length or 0, id_)
            return
        try:
            stream.receive(event)
        except Malformed as fault:
            self._refuse_body(stream, fault)

    def _begin(self, event: RequestReceived) -> None:
        id_ = event.stream_id or 0
        if self._parting:
            self.h2.reset_stream(id_, ErrorCodes.REFUSED_STREAM)
            return
        self._last = id_
        fields = event.headers or []
        ended = event.stream_ended is not None
        with_body = (b":method", b"HEAD") not in fields
        stream = self._streams[id_] = Stream(self, id_, with_body=with_body, ended=ended)
        self._put_under(None)
        head: RequestHead | None = None
        try:
            head = read_request(fields, ended=ended)
            check_size(head.length or 0, self.hub.most_body)
        except Malformed as fault:
            self.guard.charge(cost_of_refusal(len(fields)))
            stream.refuse(fault, head)
            return
        stream.begin(head)

    def _end_body(self, event: TrailersReceived) -> None:
        stream = self._streams.get(event.stream_id or 0)
        if not stream:
            return
        fields = event.headers or []
        try:
            stream.receive_trailer(read_trailer(fields))
        except Malformed as fault:
            self._refuse_body(stream, fault, len(fields))

    def _refuse_body(self, stream: Stream, fault: Malformed, fields: int = 0) -> None:
        self.guard.charge(cost_of_refusal(fields))
        detail = f"The request is refused: {fault}."
        self.reset(stream, ErrorCodes.PROTOCOL_ERROR, "malformed body", detail)

    def _lose(self, event: StreamReset) -> None:
        """Give up a request that the client has reset, or made the library reset."""
        stream = self._streams.get(event.stream_id or 0)
        if event.remote_reset:
            if stream:
                stream.end("client left")
            return
        if stream:
            error = BadFrames(f"What came of it was answered with error {event.error_code}.")
            stream.end(error.name, str(error))
        self.guard.charge(COST_OF_RESET)

    def _look_around(self) -> None:
        """Put the connection under the deadline that fits, or leave, where nothing is going on."""
        if self._streams or self._leaving:
            return
        hub = self.hub
        if self._parting:
            self._leave(ErrorCodes.NO_ERROR)
        elif self.guard.in_block:
            if self._wait is not hub.in_head:
                self._put_under(hub.in_head)
        elif self._wait is not hub.idle:  # which pings do not extend
            self._put_under(hub.idle)

    def _break(self, code: ErrorCodes | int, sentence: str) -> None:
        """End a connection whose frames cannot be borne, or make no sense."""
        hub = self.hub
        hub.complaints.warn(
            ("HTTP/2", self.peer), f"a connection of client {self.peer} is ended: {sentence}"
        )
        error = BadFrames(f"The connection is ended: {sentence}.")
        record = refusal(self.peer, error, time.monotonic(), version=VERSION)
        hub.recorder.record(record)
        self._end_streams(error.name, str(error))
        self.h2.clear_outbound_data_buffer()
        self._leave(ErrorCodes(code))

    def _leave(self, code: ErrorCodes) -> None:
        """Say goodbye, and close once the client has read it. No request is running."""
        self._leaving = True
        self._write(goaway(self._last, code))
        end_after_reading(self._transport)
        self._put_under(self.hub.lingering)

    def _end_streams(self, why: str, detail: str = "") -> None:
        for stream in list(self._streams.values()):
            stream.end(why, detail)

    def _write(self, last: bytes = b"") -> None:
        """Write what the library has to send, and `last`; a client that has left is sent none."""
        data = self.h2.data_to_send() + last
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def _put_under(self, wait: Wait | None) -> None:
        self._wait = wait
        self.due = math.inf if wait is None else self.hub.clock() + wait.seconds
