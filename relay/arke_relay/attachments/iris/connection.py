"""The connection of an Iris program: packets to operations of the native protocol, and back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping
from enum import Enum

from msgpack import unpackb

from arke.wire.limits import MAX_HELLO, MAX_REASON
from arke.wire.malformed import DECODE_ERRORS, Malformed, describe_malformed
from arke.wire.messages import Op
from arke.wire.outbox import Outbox
from arke_relay.attachments.connection import MAX_QUEUED, ProgramConnection
from arke_relay.attachments.context import AttachmentContext
from arke_relay.attachments.detach_reason import DetachReason, UnsupportedVersion
from arke_relay.attachments.iris import broadcasts, handshake, packets, requests
from arke_relay.attachments.iris.broadcasts import IrisBroadcasts
from arke_relay.attachments.iris.fields import Incomplete
from arke_relay.attachments.iris.handler import PacketHandler
from arke_relay.attachments.iris.packets import Packet
from arke_relay.attachments.iris.requests import IrisRequests
from arke_relay.attachments.iris.tunnels import IrisTunnels
from arke_relay.core.attached_programs import NotAllowed
from arke_relay.core.directory import Candidate
from arke_relay.core.endpoints import Message

_ENCODERS = requests.ENCODERS | broadcasts.ENCODERS
_OFFER = Op.OFFER.value
_CLOSE_POLL = 0.02
"""Seconds between two checks whether a closing program has replied to everything."""

_CLOSE_TIMEOUT = 30.0
"""Seconds in which the other ends must accept the rest of the tunnels that the program closed."""


class CloseState(Enum):
    """The graceful close that a program starts with CLOSE. The states follow in this order."""

    OPEN = "open"
    FINISHING = "finishing"
    """It gets no new requests. It still replies, and its closed tunnels are emptied."""
    FLUSHING = "flushing"
    """It is detached, and its queue is being written."""
    CLOSE_SENT = "close_sent"
    """The relay has sent CLOSE and closed its side; the program closes the connection."""


_NEXT_STATE = {
    CloseState.OPEN: CloseState.FINISHING,
    CloseState.FINISHING: CloseState.FLUSHING,
    CloseState.FLUSHING: CloseState.CLOSE_SENT,
}


class IrisConnection(ProgramConnection):
    """Version 1.0-draft2 of the Iris relay protocol."""

    def __init__(self, context: AttachmentContext, transport: asyncio.Transport) -> None:
        # The outbox holds encoded packets, so it has nothing to pack.
        outbox = Outbox(MAX_QUEUED, self._wake, self.flush, pack=_unchanged)
        super().__init__(context, transport, outbox)
        self.drop_flow = outbox.drop_flow
        self._incomplete = bytearray()
        """The beginning of a packet that has not arrived whole."""
        self._needed = 0
        """Bytes of it that must be there before it can be read."""
        self._close_state = CloseState.OPEN
        self._close_started = 0.0
        self._candidate: Candidate | None = None
        """What it was as a member, until it sent CLOSE."""
        self._tunnels: IrisTunnels | None = None
        self._tunnel_encoders: dict[int, Callable[[Message], bool]] = {}
        self._handlers: list[PacketHandler] = [self._unknown] * 256
        self._add_handlers({Packet.WELCOME: self._on_init})

    # Reading.

    def handle_data(self, data: bytes | memoryview) -> None:
        self.received = True
        now = self._clock()
        if self._incomplete:
            self._incomplete += data
            if len(self._incomplete) < self._needed:
                return
            received = bytes(self._incomplete)
            self._incomplete.clear()
        else:
            received = bytes(data)
        at, end = 0, len(received)
        handlers = self._handlers
        try:
            while at < end:
                at = handlers[received[at]](received, at + 1, now)
        except Incomplete as incomplete:
            self._incomplete += received[at:]
            self._needed = incomplete.needed - at
        except NotAllowed as violation:
            self.end(DetachReason.NOT_ALLOWED, str(violation))
        except DECODE_ERRORS as error:
            text = f"protocol error: {describe_malformed(error)}"
            self.end(DetachReason.PROTOCOL_ERROR, text)
        self._flusher.flush()

    def ping(self) -> None:
        # Iris has no ping: a program counts as alive while its connection is open.
        self.received = True

    @property
    def receiving(self) -> bool:
        return len(self._incomplete) > MAX_HELLO

    def _send_reason(self, text: str) -> None:
        reason = text[:MAX_REASON]
        attached = self._program is not None
        self._outbox.put(packets.close(reason) if attached else handshake.refusal(reason))

    def _stop_handling(self) -> None:
        self._handlers[:] = [_ignore] * 256
        self._incomplete.clear()

    # MessageSink.

    def put(self, message: Message) -> bool:
        op = message[0]
        encode = _ENCODERS.get(op)
        if encode is not None:
            return self._outbox.put(encode(message))
        encode_tunnel = self._tunnel_encoders.get(op)
        # Iris has no packets for other messages, such as NODE_ADDRESS and DRAINING.
        return True if encode_tunnel is None else encode_tunnel(message)

    def put_body(self, message: Message, body_index: int, key: Hashable = None) -> bool:
        op = message[0]
        if op == _OFFER:
            return self._tunnel_encoders[op](message)
        return self._outbox.put_packed(_ENCODERS[op](message), None)

    def put_packed(self, data: bytes, key: Hashable) -> bool:
        message = unpackb(data, use_list=False)
        return self._outbox.put_packed(_ENCODERS[message[0]](message), None)

    def put_in_flow(self, message: Message, key: int | None) -> bool:
        return self._tunnel_encoders[message[0]](message)

    def flush(self) -> None:
        super().flush()
        if self._tunnels is not None:
            self._tunnels.resume_grants()

    # Handshake and close.

    def _on_init(self, data: bytes, at: int, now: float) -> int:
        try:
            cluster, at = handshake.read_init(data, at)
        except UnsupportedVersion as error:
            self.end(DetachReason.UNSUPPORTED_VERSION, str(error))
            return len(data)
        context = self._context
        core = context.core
        if core.router.draining:
            self.end(DetachReason.RELAY_STOPPING)
            return at
        self._outbox.put(handshake.welcome())
        program = self._program = context.registry.attached("iris", self, self)
        tunnels = self._tunnels = IrisTunnels(program, core, self._outbox, self.overrun)
        self._tunnel_encoders = tunnels.encoders
        self._handlers[Packet.WELCOME] = self._unknown
        iris_requests = IrisRequests(program, core.router, self, context.max_message)
        self._add_handlers(iris_requests.handlers)
        self._add_handlers(IrisBroadcasts(program, context).handlers)
        self._add_handlers(tunnels.handlers)
        self._add_handlers({Packet.CLOSE: self._on_close})
        if cluster:
            context.registry.register(program, cluster, {}, now)
        return at

    def _on_close(self, data: bytes, at: int, now: float) -> int:
        """Start the graceful close: no new requests, but what was started is finished."""
        assert self._program
        if self._close_state is CloseState.OPEN:
            self._advance_close()
            self._close_started = now
            self._candidate = self._context.core.directory.members.get(self._program.sender)
            self._context.registry.unregister(self._program)
            self._check_finished()
        return at

    def _check_finished(self) -> None:
        if self._reason is not None or self._program is None:
            return
        assert self._tunnels
        in_time = self._clock() - self._close_started < _CLOSE_TIMEOUT
        outstanding = self._candidate is not None and self._candidate.outstanding > 0
        if outstanding or (in_time and self._tunnels.holding):
            asyncio.get_running_loop().call_later(_CLOSE_POLL, self._check_finished)
        else:
            self._advance_close()
            self._close(DetachReason.CLOSED_BY_PROGRAM)
            # Closing a socket with unread data sends a RST, which destroys data in transit.
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def _flushed(self) -> None:
        if self._close_state is CloseState.FLUSHING:
            self._advance_close()
            self._transport.write(packets.close(""))
            self._transport.write_eof()
        elif self._close_state is not CloseState.CLOSE_SENT:
            super()._flushed()

    def _advance_close(self) -> None:
        self._close_state = _NEXT_STATE[self._close_state]

    def _unknown(self, data: bytes, at: int, now: float) -> int:
        if self._program is None:
            raise Malformed("INIT must be the first packet")
        raise Malformed(f"unknown packet {data[at - 1]:#04x}")

    def _add_handlers(self, handlers: Mapping[int, PacketHandler]) -> None:
        for packet, handler in handlers.items():
            self._handlers[packet] = handler


def _ignore(data: bytes, *_: object) -> int:
    """Packets of a closing connection are discarded."""
    return len(data)


def _unchanged(packet: bytes) -> bytes:
    return packet
