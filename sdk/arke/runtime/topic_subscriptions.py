"""Topic subscriptions: subscribe at every relay that the program attaches to, dispatch events."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from arke.errors import RequestTimeout
from arke.runtime.reconnect import Attachment
from arke.runtime.relay_connection import Message, MessageHandler, RelayConnection
from arke.values import NO_HEADERS, Event
from arke.wire.limits import MAX_TOPICS
from arke.wire.messages import Op

_new = tuple.__new__  # half the cost of a named tuple's own constructor


class EventSink(Protocol):
    """Receives the events of a topic."""

    dropped: int

    def deliver(self, event: Event) -> None: ...
    def end(self) -> None: ...


class TopicSubscriptions:
    """The event sinks of each topic. A topic is subscribed once, however many sinks it has."""

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment
        self._sinks: dict[str, list[EventSink]] = {}

    async def add(self, topic: str, sink: EventSink, timeout: float) -> None:  # noqa: ASYNC109
        """Deliver events to the sink; returns once the relay has subscribed the topic.

        Raises MeshClosed, RequestTimeout after `timeout` seconds, and ValueError for more topics
        than one program may have.
        """
        self._attachment.check_open()
        if topic not in self._sinks and len(self._sinks) >= MAX_TOPICS:
            raise ValueError(f"a program can subscribe to at most {MAX_TOPICS} topics")
        sinks = self._sinks.setdefault(topic, [])
        sinks.append(sink)
        connection = self._attachment.connection
        if connection is None:
            return
        if len(sinks) == 1:
            connection.send((Op.SUBSCRIBE.value, topic))
        try:
            async with asyncio.timeout(timeout):
                await connection.synchronize()
        except TimeoutError:
            self.remove(topic, sink)
            raise RequestTimeout(
                f"timed out: no answer of the relay at {self._attachment.address}"
            ) from None
        except BaseException:
            self.remove(topic, sink)
            raise

    def remove(self, topic: str, sink: EventSink) -> None:
        """Stop the delivery; the last sink of a topic unsubscribes it."""
        sinks = self._sinks[topic]
        sinks.remove(sink)
        if not sinks:
            del self._sinks[topic]
            if self._attachment.connection:
                self._attachment.connection.send((Op.UNSUBSCRIBE.value, topic))

    # The component interface.

    @property
    def handlers(self) -> Mapping[int, MessageHandler]:
        return {Op.DELIVER_EVENT: self._on_event}

    def on_attached(self, connection: RelayConnection) -> None:
        for topic in self._sinks:
            connection.send((Op.SUBSCRIBE.value, topic))

    def on_writable(self) -> None:
        """Nothing waits for room."""

    def on_detached(self, reason: str, last_accepted: int | None) -> None:
        """Events published while the program is detached are lost."""

    def on_closed(self) -> None:
        for sinks in self._sinks.values():
            for sink in sinks:
                sink.end()

    def _on_event(self, message: Message, connection: RelayConnection) -> None:
        _, topic, body, sender, headers = message
        # Even without a sink: a body that came in chunks must leave the reassembler.
        bodies = (body,) if type(body) is bytes else connection.fanout_bodies(body)
        sinks = self._sinks.get(topic, ())
        if headers is None:
            headers = NO_HEADERS
        for each in bodies:
            event = _new(Event, (topic, each, sender, headers))
            for sink in sinks:
                sink.deliver(event)
        if not bodies:
            for sink in sinks:
                sink.dropped += 1
