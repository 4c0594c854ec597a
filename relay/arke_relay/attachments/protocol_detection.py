"""A connection before it is known what it speaks: bounded in octets and in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from arke.wire.limits import MAX_HELLO
from arke_relay.attachments.connection import Connection
from arke_relay.attachments.iris.connection import IrisConnection
from arke_relay.attachments.iris.packets import Packet
from arke_relay.attachments.native.connection import NativeConnection
from arke_relay.attachments.program_registry import ProgramRegistry

PATIENCE = 5.0
"""Seconds in which a program must have said hello."""


class ProtocolDetector(asyncio.Protocol):
    """Tells the protocols apart by their first octet.

    Only a whole hello (MAX_HELLO octets at most) moves a connection on.
    """

    def __init__(self, registry: ProgramRegistry, loop: asyncio.AbstractEventLoop) -> None:
        self._registry = registry
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._connection: Connection | None = None
        self._octets = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._registry.admit(self)
        self._timer = self._loop.call_later(PATIENCE, self._expire)

    def data_received(self, data: bytes) -> None:
        assert self._transport
        room = MAX_HELLO - self._octets
        self._octets += len(data)
        if self._connection is None:
            spoken = _protocol(data[0])
            if spoken is None:
                self._registry.refused("what it speaks is not known here")
                self._transport.abort()
                return
            self._connection = spoken(self._registry, self._transport)
        self._connection.data_received(data[:room])
        if self._connection.program is not None:
            self._done()
            self._transport.set_protocol(cast("asyncio.Protocol", self._connection))
            if len(data) > room:  # what it said at once behind its hello
                self._connection.data_received(data[room:])
        elif self._octets > MAX_HELLO:
            self._registry.refused("its hello is too long")
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._done()
        if self._connection is not None:
            self._connection.connection_lost(error)

    def abort(self) -> None:
        if self._transport:
            self._transport.abort()

    def _expire(self) -> None:
        assert self._transport
        self._registry.refused(f"it said no hello within {PATIENCE:g} s")
        self._transport.abort()

    def _done(self) -> None:
        self._registry.dismiss(self)
        if self._timer:
            self._timer.cancel()
            self._timer = None


def _protocol(octet: int) -> Callable[[ProgramRegistry, asyncio.Transport], Connection] | None:
    if 0x90 <= octet <= 0x9F:  # a MessagePack array
        return NativeConnection
    if octet == Packet.WELCOME:
        return IrisConnection
    return None
