"""Subscription: the events of one topic, in order, in a queue bounded in bytes."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Self

from arke.runtime.topic_subscriptions import TopicSubscriptions
from arke.values import Event

_MAX_QUEUE = 64 * 1024 * 1024
_EVENT_OVERHEAD = 200  # bytes that an event costs beside its body


class Subscription:
    """An async iterator over the events of a topic, valid inside its `async with` block.

    A program that reads too slowly loses the newest events; `dropped` counts them.
    """

    def __init__(self, topics: TopicSubscriptions, topic: str, timeout: float) -> None:
        self._topics = topics
        self._timeout = timeout
        self._events: deque[Event] = deque()
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._open = False
        self.topic = topic
        self.dropped = 0

    def __repr__(self) -> str:
        return f"<arke.Subscription to {self.topic!r}, {len(self._events)} events queued>"

    async def __aenter__(self) -> Self:
        self._open = True
        await self._topics.add(self.topic, self, self._timeout)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._topics.remove(self.topic, self)
        self.end()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self._events:
            if not self._open:
                raise StopAsyncIteration
            if self._waiter is not None:
                raise RuntimeError("one task at a time may read a subscription")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        event = self._events.popleft()
        self._size -= len(event.body) + _EVENT_OVERHEAD
        return event

    def deliver(self, event: Event) -> None:
        """Queue an event, or drop it when the queue is full."""
        size = len(event.body) + _EVENT_OVERHEAD
        if self._size + size > _MAX_QUEUE:
            self.dropped += 1
            return
        self._size += size
        self._events.append(event)
        if self._waiter is not None:
            self._wake()

    def end(self) -> None:
        """End the iteration after the queued events."""
        self._open = False
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
