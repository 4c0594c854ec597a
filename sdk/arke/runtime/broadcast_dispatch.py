"""Dispatch broadcasts to the broadcast handler of a service, within its limits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from arke.limits import Limits
from arke.runtime.handler_errors import HandlerErrors
from arke.runtime.handler_pool import HandlerPool, is_task_cancelled
from arke.runtime.relay_connection import Message, RelayConnection
from arke.values import NO_HEADERS, Broadcast

_new = tuple.__new__  # half the cost of a named tuple's own constructor
_BROADCAST_OVERHEAD: Final = 256  # bytes that a waiting broadcast costs beside its body


class BroadcastDispatcher:
    """The queue of broadcasts, and their running handlers."""

    def __init__(
        self,
        limits: Limits,
        errors: HandlerErrors,
        handler: Callable[[Broadcast], Awaitable[Any]] | None,
    ) -> None:
        self.dropped = 0
        """Broadcasts that were dropped because their queue, or the reassembler, was full."""
        self._max_bytes = limits.broadcast_bytes
        self._errors = errors
        self._handler = handler
        self._pool = HandlerPool(limits.broadcasts, self._handle)
        self._bytes = 0  # of queued broadcasts

    @property
    def queued(self) -> int:
        """Number of broadcasts that wait for a handler."""
        return self._pool.queued

    @property
    def running(self) -> int:
        return len(self._pool.running())

    async def wait_idle(self) -> None:
        await self._pool.wait_idle()

    async def stop(self) -> None:
        await self._pool.stop()

    def on_deliver(self, message: Message, connection: RelayConnection) -> None:
        _, body, sender, headers = message
        bodies = (body,) if type(body) is bytes else connection.fanout_bodies(body)
        if self._handler is None:
            return
        if not bodies:
            self.dropped += 1
        if headers is None:
            headers = NO_HEADERS
        max_bytes = self._max_bytes
        for each in bodies:
            size = len(each) + _BROADCAST_OVERHEAD
            if self._bytes and self._bytes + size > max_bytes:
                self.dropped += 1
                continue
            self._bytes += size
            self._pool.put(_new(Broadcast, (each, sender, headers)))

    async def _handle(self, broadcast: Broadcast) -> None:
        self._bytes -= len(broadcast.body) + _BROADCAST_OVERHEAD
        assert self._handler
        try:
            await self._handler(broadcast)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and is_task_cancelled():
                raise
            self._errors.report("broadcast", error, broadcast)
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
