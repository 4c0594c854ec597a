"""Detect the protocol of a new connection, and bound its HELLO in size and time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from arke.wire.limits import MAX_HELLO
from arke_relay.attachments.connection import ProgramConnection
from arke_relay.attachments.context import AttachmentContext
from arke_relay.attachments.iris.connection import IrisConnection
from arke_relay.attachments.iris.packets import Packet
from arke_relay.attachments.native.connection import NativeConnection
from arke_relay.attachments.pending_handshakes import Rejection

HELLO_TIMEOUT = 5.0
"""Seconds in which a program must send its HELLO."""


class ProtocolDetector(asyncio.Protocol):
    """Chooses the protocol by the first byte, and hands the transport over after the HELLO."""

    def __init__(self, context: AttachmentContext, loop: asyncio.AbstractEventLoop) -> None:
        self._context = context
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._connection: ProgramConnection | None = None
        self._received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._context.handshakes.add(self)
        self._timer = self._loop.call_later(HELLO_TIMEOUT, self._expire)

    def data_received(self, data: bytes) -> None:
        assert self._transport
        room = MAX_HELLO - self._received
        self._received += len(data)
        if self._connection is None:
            connect = _protocol(data[0])
            if connect is None:
                self._reject(Rejection.UNKNOWN_PROTOCOL)
                return
            self._connection = connect(self._context, self._transport)
        self._connection.data_received(data[:room])
        if self._connection.program is not None:
            self._done()
            self._transport.set_protocol(cast("asyncio.Protocol", self._connection))
            if len(data) > room:  # messages sent together with the HELLO
                self._connection.data_received(data[room:])
        elif self._received > MAX_HELLO:
            self._reject(Rejection.HELLO_TOO_LONG)

    def connection_lost(self, error: Exception | None) -> None:
        self._done()
        if self._connection is not None:
            self._connection.connection_lost(error)

    def abort(self) -> None:
        if self._transport:
            self._transport.abort()

    def _expire(self) -> None:
        self._reject(Rejection.TIMED_OUT, after_s=HELLO_TIMEOUT)

    def _reject(self, reason: Rejection, **fields: object) -> None:
        self._context.handshakes.reject(reason, **fields)
        self.abort()

    def _done(self) -> None:
        self._context.handshakes.remove(self)
        if self._timer:
            self._timer.cancel()
            self._timer = None


def _protocol(
    first: int,
) -> Callable[[AttachmentContext, asyncio.Transport], ProgramConnection] | None:
    if 0x90 <= first <= 0x9F:  # a MessagePack array
        return NativeConnection
    if first == Packet.WELCOME:
        return IrisConnection
    return None
