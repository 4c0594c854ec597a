"""The events of one topic, in order, bounded in octets."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Self

from arke.values import Event

if TYPE_CHECKING:
    from arke.runtime.topic_subscriptions import Topics

_QUEUE = 64 * 1024 * 1024
_OVERHEAD = 200  # octets an event costs beside its body


class Subscription:
    """An async iterator of events, alive inside its `async with`.

    A program that reads too slowly loses the newest events; `dropped` counts them.
    """

    def __init__(self, topics: Topics, topic: str) -> None:
        self._topics = topics
        self._events: deque[Event] = deque()
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._open = False
        self.topic = topic
        self.dropped = 0

    async def __aenter__(self) -> Self:
        self._open = True
        await self._topics.listen(self.topic, self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._topics.unlisten(self.topic, self)
        self.end()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self._events:
            if not self._open:
                raise StopAsyncIteration
            if self._waiter is not None:
                raise RuntimeError("a subscription is read by one task at a time")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        event = self._events.popleft()
        self._size -= len(event.body) + _OVERHEAD
        return event

    def deliver(self, event: Event) -> None:
        size = len(event.body) + _OVERHEAD
        if self._size + size > _QUEUE:
            self.dropped += 1
            return
        self._size += size
        self._events.append(event)
        if self._waiter is not None:
            self._wake()

    def end(self) -> None:
        """No more events come; those that are queued can still be read."""
        self._open = False
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
