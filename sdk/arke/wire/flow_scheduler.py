"""Flow scheduler: send large bodies and tunnel messages round-robin, each flow in its own order.

A flow is a queue of messages under one key, for example one topic or one tunnel. A large body or a
large tunnel message creates it, and it is removed when it is empty. Without a flow, messages go
straight into the outbox's queue of small messages. A new flow starts after all small messages that
were queued before it have been sent. Then the active flows take turns, one chunk or message each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Any, Final

from arke.wire.chunked_body import BodyChunks
from arke.wire.limits import CHUNK, MAX_PARTIAL_BYTES
from arke.wire.messages import Op

_CHUNK_OP: Final = int(Op.CHUNK)


class LargeMessage:
    """A message whose body is sent in chunks."""

    __slots__ = ("body", "body_index", "fields", "final", "number", "sent", "stream")

    def __init__(self, fields: tuple[Any, ...], body_index: int, number: int) -> None:
        self.number = number
        """Sequence number among the outbox's large messages, from 1."""
        self.fields = fields
        self.body_index = body_index
        self.body = fields[body_index]
        self.stream = 0
        self.sent = 0
        """Bytes of the body that have been sent."""
        self.final = b""
        """The message itself, packed once all chunks have been sent."""


class FlowScheduler:
    """The flows of one outbox.

    `ready` is the outbox's queue of small messages: messages that waited behind a large body are
    appended to it once that body has been sent. `pack` encodes a message.
    """

    __slots__ = (
        "_behind_bodies",
        "_bodies_waiting",
        "_large_count",
        "_pack",
        "_ready",
        "_streams",
        "_tunnels_waiting",
        "active",
        "flows",
        "message_count",
        "partial_bytes",
        "ready_sent",
    )

    def __init__(self, ready: list[bytes], pack: Callable[[Any], bytes]) -> None:
        self._ready = ready
        self._pack = pack
        # The first item is a LargeMessage or a large packed tunnel message.
        self.flows: dict[Hashable, deque[LargeMessage | bytes]] = {}
        self.active: deque[Hashable] = deque()
        """Keys of the flows that are being sent; the first one is next."""
        self.message_count = 0
        """Messages in flows, and messages that wait for a large body."""
        self.partial_bytes = 0
        """Total size of the partially sent bodies."""
        self.ready_sent = 0
        """Small messages taken by partial batches; the start positions of flows refer to it."""
        # Flows that have not started, each with the value of `ready_sent` at which it may start.
        self._bodies_waiting: deque[tuple[Hashable, int]] = deque()
        self._tunnels_waiting: deque[tuple[Hashable, int]] = deque()
        # Messages that wait for every large message up to a number.
        self._behind_bodies: deque[tuple[int, bytes]] = deque()
        self._large_count = 0
        self._streams = 0

    def append(self, flow: deque[LargeMessage | bytes], data: bytes) -> None:
        """Queue a packed message at the end of a flow."""
        flow.append(data)
        self.message_count += 1

    def add_body(self, message: tuple[Any, ...], body_index: int, key: Hashable) -> None:
        """Queue a message with a large body; without a key it is a flow of its own."""
        self._large_count += 1
        large = LargeMessage(message, body_index, self._large_count)
        self.message_count += 1
        flow = None if key is None else self.flows.get(key)
        if flow is not None:
            flow.append(large)
        else:
            new_key = large if key is None else key
            self.flows[new_key] = deque((large,))
            self._queue_flow_start(new_key)

    def add_tunnel_message(self, data: bytes, key: Hashable) -> None:
        """Create a tunnel's flow with one large message; the flow waits for its turn."""
        self.flows[key] = deque((data,))
        self.message_count += 1
        self._tunnels_waiting.append((key, self.ready_sent + len(self._ready)))

    def add_behind_bodies(self, data: bytes) -> None:
        """Queue a packed message behind all large bodies that wait now."""
        self._behind_bodies.append((self._large_count, data))
        self.message_count += 1

    def has_bodies(self) -> bool:
        """Whether a large body waits, or is partially sent."""
        return self._first_large() > 0

    def drop_tunnel_messages(self, key: Hashable) -> int:
        """Drop the tunnel messages of a flow and return their size in bytes.

        A large body stays: the request that opens the tunnel is in the same flow.
        """
        flow = self.flows.get(key)
        if flow is None:
            return 0
        bodies = deque[LargeMessage | bytes](
            item for item in flow if isinstance(item, LargeMessage)
        )
        size = sum(len(data) for data in flow if isinstance(data, bytes))
        self.message_count -= len(flow) - len(bodies)
        if bodies:
            self.flows[key] = bodies
            return size
        del self.flows[key]
        if key in self.active:
            self.active.remove(key)
        else:
            # Remove its entry too. A start position that is never reached would block later flows,
            # and a new flow with this key would be activated twice.
            waiting = [entry for entry in self._tunnels_waiting if entry[0] != key]
            self._tunnels_waiting = deque(waiting)
        return size

    def start_flows(self) -> None:
        """Start the flows whose turn has come; large bodies only within MAX_PARTIAL_BYTES."""
        while self._tunnels_waiting and self._tunnels_waiting[0][1] <= self.ready_sent:
            self.active.append(self._tunnels_waiting.popleft()[0])
        while self._bodies_waiting:
            key, start_at = self._bodies_waiting[0]
            large = self.flows[key][0]
            assert isinstance(large, LargeMessage)
            partial_bytes = self.partial_bytes + len(large.body)
            if start_at > self.ready_sent:
                return
            if self.partial_bytes and partial_bytes > MAX_PARTIAL_BYTES:
                return
            self.partial_bytes = partial_bytes
            large.stream = self._streams
            self._streams += 1
            self.active.append(self._bodies_waiting.popleft()[0])

    def next_message(self) -> tuple[bytes, int]:
        """Take the next message of the first active flow.

        Returns the encoded message, and by how many bytes the outbox's `size` decreases. They
        differ, because `size` counts bodies without the overhead of MessagePack.
        """
        flow = self.flows[self.active[0]]
        large = flow[0]
        if not isinstance(large, LargeMessage):
            flow.popleft()
            self.message_count -= 1
            if flow:
                self.active.rotate(-1)
            else:
                del self.flows[self.active.popleft()]
            return large, len(large)
        if large.final:
            self._finish_body(flow, large)
            return large.final, len(large.final)
        body = large.body
        offset = large.sent
        data = body.chunk(offset) if type(body) is BodyChunks else body[offset : offset + CHUNK]
        large.sent += len(data)
        size_decrease = len(data)
        if large.sent < len(body):
            self.active.rotate(-1)
        else:
            index = large.body_index
            fields = (*large.fields[:index], large.stream, *large.fields[index + 1 :])
            large.final = self._pack(fields)
            size_decrease -= len(large.final)
        return self._pack((_CHUNK_OP, large.stream, len(body), data)), size_decrease

    def clear(self) -> None:
        """Drop everything."""
        self.flows.clear()
        self.active.clear()
        self._bodies_waiting.clear()
        self._tunnels_waiting.clear()
        self._behind_bodies.clear()
        self.message_count = self.partial_bytes = 0

    def _queue_flow_start(self, key: Hashable) -> None:
        # The small messages queued before the flow must be sent first: some belong to the same key.
        self._bodies_waiting.append((key, self.ready_sent + len(self._ready)))

    def _first_large(self) -> int:
        """The number of the first large message that waits; 0 without one."""
        items = (item for flow in self.flows.values() for item in flow)
        return min((item.number for item in items if isinstance(item, LargeMessage)), default=0)

    def _finish_body(self, flow: deque[LargeMessage | bytes], large: LargeMessage) -> None:
        """Remove a large message that has been sent, and release the messages behind it."""
        self._release_flow(flow, large)
        if self._behind_bodies:
            first = self._first_large()
            while self._behind_bodies and (not first or self._behind_bodies[0][0] < first):
                self._ready.append(self._behind_bodies.popleft()[1])
                self.message_count -= 1

    def _release_flow(self, flow: deque[LargeMessage | bytes], large: LargeMessage) -> None:
        key = self.active.popleft()
        self.partial_bytes -= len(large.body)
        flow.popleft()
        self.message_count -= 1
        while flow:
            item = flow[0]
            if isinstance(item, LargeMessage):
                self._queue_flow_start(key)
                return
            self._ready.append(item)
            flow.popleft()
            self.message_count -= 1
        del self.flows[key]
