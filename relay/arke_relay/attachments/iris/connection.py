"""The connection of a program written for Iris: packets to operations and back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping

from msgpack import unpackb

from arke.wire.limits import MAX_HELLO, MAX_REASON, check_name
from arke.wire.malformed import DECODE_ERRORS, Malformed, describe_malformed
from arke.wire.messages import Op
from arke.wire.outbox import Outbox
from arke_relay.attachments.connection import OUTBOX, Connection
from arke_relay.attachments.iris import broadcasts as casts
from arke_relay.attachments.iris import packets
from arke_relay.attachments.iris import requests as calls
from arke_relay.attachments.iris.broadcasts import IrisBroadcasts
from arke_relay.attachments.iris.fields import Unfinished, text
from arke_relay.attachments.iris.handler import Handler
from arke_relay.attachments.iris.packets import CLIENT_MAGIC, VERSION, Packet
from arke_relay.attachments.iris.requests import IrisRequests
from arke_relay.attachments.iris.tunnels import IrisTunnels
from arke_relay.attachments.program_registry import LEFT, ProgramRegistry
from arke_relay.core.directory import Candidate
from arke_relay.core.endpoints import Message
from arke_relay.core.message_core import NotAllowed

_ENCODERS = calls.ENCODERS | casts.ENCODERS
_OFFER = Op.OFFER.value
_LOOK = 0.02
"""Seconds between two looks whether a program that wants to leave has answered everything."""

_PATIENCE = 30.0
"""Seconds in which others must have taken what the tunnels that it closed still hold."""


class IrisConnection(Connection):
    """A program that speaks version 1.0-draft2 of the Iris relay protocol."""

    def __init__(self, registry: ProgramRegistry, transport: asyncio.Transport) -> None:
        # What leaves is packets already: the outbox has nothing to pack.
        outbox = Outbox(OUTBOX, self._wake, self.flush, pack=_as_it_is)
        super().__init__(registry, transport, outbox)
        self.drop_flow = outbox.drop_flow
        self._rest = bytearray()
        self._needed = 0
        self._leaving = 0.0
        self._served: Candidate | None = None  # what it was, to those who asked it, when it left
        self._departing = False
        self._said_farewell = False
        self._tunnels: IrisTunnels | None = None
        self._tunnel_messages: dict[int, Callable[[Message], bool]] = {}
        self._handlers: list[Handler] = [self._unknown] * 256
        self._handle({Packet.WELCOME: self._on_hello})

    # Octets.

    def understand(self, data: bytes | memoryview) -> None:
        self.heard = True
        now = self._registry.clock()
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return
            octets = bytes(self._rest)
            self._rest.clear()
        else:
            octets = bytes(data)
        at, end = 0, len(octets)
        handlers = self._handlers
        try:
            while at < end:
                at = handlers[octets[at]](octets, at + 1, now)
        except Unfinished as error:
            self._rest += octets[at:]
            self._needed = error.needed - at
        except NotAllowed as error:
            self.end(str(error))
        except DECODE_ERRORS as error:
            self.end(f"not understood: {describe_malformed(error)}")
        self._flusher.flush()

    def ping(self) -> None:
        # The protocol has none. That the connection stands is all there is to know.
        self.heard = True

    @property
    def receiving(self) -> bool:
        return len(self._rest) > MAX_HELLO

    def _say_why(self, reason: str) -> None:
        if self._program is None:
            self._outbox.put(packets.refusal(reason[:MAX_REASON]))
        else:
            self._outbox.put(packets.close(reason[:MAX_REASON]))

    def _stop_handling(self) -> None:
        self._handlers[:] = [_ignore] * 256
        self._rest.clear()

    # MessageSink.

    def put(self, message: Message) -> bool:
        op = message[0]
        encode = _ENCODERS.get(op)
        if encode is not None:
            return self._outbox.put(encode(message))
        handle = self._tunnel_messages.get(op)
        # There is no word in Iris for addresses and goodbyes.
        return True if handle is None else handle(message)

    def put_body(self, message: Message, at: int, order: Hashable = None) -> bool:
        op = message[0]
        if op == _OFFER:
            return self._tunnel_messages[op](message)
        return self._outbox.put_packed(_ENCODERS[op](message), None)

    def put_packed(self, data: bytes, order: Hashable) -> bool:
        message = unpackb(data, use_list=False)
        return self._outbox.put_packed(_ENCODERS[message[0]](message), None)

    def put_in_flow(self, message: Message, tunnel: int | None) -> bool:
        return self._tunnel_messages[message[0]](message)

    def flush(self) -> None:
        super().flush()
        if self._tunnels is not None:
            self._tunnels.read()

    # Beginning and end.

    def _on_hello(self, data: bytes, at: int, now: float) -> int:
        magic, at = text(data, at, MAX_HELLO)
        version, at = text(data, at, MAX_HELLO)
        cluster, at = text(data, at, MAX_HELLO)
        registry = self._registry
        if magic != CLIENT_MAGIC:
            raise Malformed("not the hello of an Iris program")
        if version != VERSION:
            self.end(f"Unsupported protocol. Client: {version:.20}. Iris: {VERSION}.")
            return at
        if cluster:
            check_name(cluster)
        if registry.core.router.draining:
            self.end("the relay is leaving")
            return at
        self._outbox.put(packets.welcome())
        program = self._program = registry.attached("iris", self, self)
        tunnels = self._tunnels = IrisTunnels(program, registry.core, self._outbox, self.overrun)
        self._tunnel_messages = {
            Op.OFFER: tunnels.offered,
            Op.ACCEPT: tunnels.accepted,
            Op.DATA: tunnels.arrived,
            Op.CREDIT: tunnels.credited,
            Op.END: tunnels.ended,
            Op.REQUEST_CANCELLED: tunnels.withdrawn,
        }
        self._handlers[Packet.WELCOME] = self._unknown
        self._handle(IrisRequests(program, registry.core, self, registry.max_message).handlers)
        self._handle(IrisBroadcasts(program, registry).handlers)
        self._handle(tunnels.handlers)
        self._handle({Packet.CLOSE: self._on_close})
        if cluster:
            registry.registered(program, cluster, {}, now)
        return at

    def _on_close(self, data: bytes, at: int, now: float) -> int:
        """It wants to leave: it still answers what it was handed, and what it sent arrives."""
        assert self._program
        if not self._leaving:
            self._leaving = now
            self._served = self._registry.core.directory.members.get(self._program.sender)
            self._registry.left(self._program)
            self._look()
        return at

    def _look(self) -> None:
        if self._ended or self._program is None:
            return
        assert self._tunnels
        patient = self._registry.clock() - self._leaving < _PATIENCE
        owes = self._served is not None and self._served.outstanding > 0
        if owes or (patient and self._tunnels.holding):
            asyncio.get_running_loop().call_later(_LOOK, self._look)
        else:
            self._departing = True
            self._close(LEFT)
            # Closing a socket with octets that nobody read would destroy what is on its way out.
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def _finish(self) -> None:
        """Say farewell, behind what tunnels still brought; the program then closes."""
        if not self._departing:
            super()._finish()
        elif not self._said_farewell:
            self._said_farewell = True
            self._transport.write(packets.close(""))
            self._transport.write_eof()

    def _unknown(self, data: bytes, at: int, now: float) -> int:
        if self._program is None:
            raise Malformed("it did not say hello first")
        raise Malformed(f"unknown packet {data[at - 1]:#04x}")

    def _handle(self, handlers: Mapping[int, Handler]) -> None:
        for packet, handler in handlers.items():
            self._handlers[packet] = handler


def _ignore(data: bytes, *_: object) -> int:
    """Nothing that comes behind the end counts."""
    return len(data)


def _as_it_is(packet: bytes) -> bytes:
    return packet
