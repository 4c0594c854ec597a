"""What a program listens to: subscribes at every relay it comes to, and hands the events on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from arke.runtime.relay_connection import Handler, Message, RelayLink
from arke.values import NO_HEADERS, Event
from arke.wire.limits import MAX_TOPICS
from arke.wire.messages import Op

if TYPE_CHECKING:
    from arke.runtime.reconnect import Attachment

_new = tuple.__new__  # half the price of a named tuple's own constructor


class Listener(Protocol):
    """Who wants the events of a topic."""

    dropped: int

    def deliver(self, event: Event) -> None: ...
    def end(self) -> None: ...


class Topics:
    """Listeners by topic, each topic subscribed once."""

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment
        self._listeners: dict[str, list[Listener]] = {}

    async def listen(self, topic: str, listener: Listener) -> None:
        """Hand events to the listener; returns once the relay knows. Raises MeshClosed.

        Raises ValueError beyond the topics that one program may have.
        """
        self._attachment.check_open()
        if topic not in self._listeners and len(self._listeners) >= MAX_TOPICS:
            raise ValueError(f"more than {MAX_TOPICS} topics")
        listeners = self._listeners.setdefault(topic, [])
        listeners.append(listener)
        link = self._attachment.link
        if link is None:
            return
        if len(listeners) == 1:
            link.send((Op.SUBSCRIBE.value, topic))
        try:
            await link.settled()
        except BaseException:
            self.unlisten(topic, listener)
            raise

    def unlisten(self, topic: str, listener: Listener) -> None:
        listeners = self._listeners[topic]
        listeners.remove(listener)
        if not listeners:
            del self._listeners[topic]
            if self._attachment.link:
                self._attachment.link.send((Op.UNSUBSCRIBE.value, topic))

    # A part of the attachment.

    @property
    def handlers(self) -> Mapping[int, Handler]:
        return {Op.DELIVER_EVENT: self._on_event}

    def attached(self, link: RelayLink) -> None:
        for topic in self._listeners:
            link.send((Op.SUBSCRIBE.value, topic))

    def relieved(self) -> None:
        """Nothing waits for room."""

    def detached(self, reason: str, last_accepted: int | None) -> None:
        """What was published meanwhile is missed, as by anybody who is not there."""

    def closed(self) -> None:
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.end()

    def _on_event(self, message: Message, link: RelayLink) -> None:
        _, topic, body, sender, headers = message
        # Also where nobody listens any more: what came in chunks must be taken away.
        bodies = (body,) if type(body) is bytes else link.casts(body)
        listeners = self._listeners.get(topic, ())
        if headers is None:
            headers = NO_HEADERS
        for each in bodies:
            event = _new(Event, (topic, each, sender, headers))
            for listener in listeners:
                listener.deliver(event)
        if not bodies:
            for listener in listeners:
                listener.dropped += 1
