"""A message sink that records its messages."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

import msgpack

from arke.wire.chunked_body import BodyChunks
from arke_relay.core.endpoints import Message


@dataclass(eq=False)
class RecordingSink:
    """`room` is the number of messages that it accepts; None: any number."""

    room: int | None = None
    messages: list[Message] = field(default_factory=list)
    orders: list[Hashable] = field(default_factory=list)
    overruns: int = 0

    def put(self, message: Message) -> bool:
        return self._take(message, None)

    def put_body(self, message: Message, at: int, order: Hashable = None) -> bool:
        body = message[at]
        if isinstance(body, BodyChunks):
            return self._take((*message[:at], bytes(body), *message[at + 1 :]), order)
        assert type(body) in {bytes, tuple}
        return self._take(message, order)

    def put_packed(self, data: bytes, order: Hashable) -> bool:
        return self._take(msgpack.unpackb(data, use_list=False), order)

    def put_in_flow(self, message: Message, tunnel: Hashable) -> bool:
        return self._take(message, tunnel)

    def drop_flow(self, tunnel: Hashable) -> None:
        """Do nothing: recorded messages stay."""

    def flush(self) -> None:
        """Do nothing: recorded messages count as sent."""

    def overrun(self) -> None:
        self.overruns += 1

    def take(self) -> list[Message]:
        """Return the messages since the last call."""
        taken, self.messages, self.orders = self.messages, [], []
        return taken

    def _take(self, message: Message, order: Hashable) -> bool:
        if self.room is not None and len(self.messages) >= self.room:
            return False
        self.messages.append(message)
        self.orders.append(order)
        return True
