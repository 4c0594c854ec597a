"""Outbox: the bounded queue of messages to one receiver, in which small messages pass large bodies.

A body over CHUNK bytes is sent as `[CHUNK, stream, total, data]` messages, followed by its own
message with the stream number in place of the body; the receiver joins them with a `Reassembler`.
Small messages wait in one first-in, first-out queue. Large bodies and tunnel messages, and what
must stay in order behind them, wait in a `FlowScheduler`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from math import inf
from typing import Any, Final

from msgpack import Packer

from arke.wire.flow_scheduler import FlowScheduler
from arke.wire.limits import CHUNK, FANOUT_BATCH, MAX_SHARED_BODIES, REQUEST_BATCH

_CONTROL_RESERVE: Final = 1024 * 1024  # bytes beyond the limit for messages without a body
_MAX_SMALL_TUNNEL_MESSAGE: Final = 4096  # larger tunnel messages take turns in a flow
_MAX_SHARING_BODY: Final = 1024  # larger broadcast bodies get a message of their own
_MESSAGE_OVERHEAD: Final = 48  # bytes that Python needs for each message beside its data
_MAX_TUNNEL_BYTES = 192 * 1024 * 1024  # more than the credit of all tunnels of one receiver
_MAX_BEFORE_CHUNK: Final = 32 * 1024  # bytes of small messages ahead of a chunk in one batch


def _ignore() -> None:
    """Do nothing: the default callback."""


class Outbox:
    """Messages that wait to be sent to one receiver, bounded in bytes.

    `put…` methods add a message and return False when the outbox is full and the message was
    dropped. `put` and `put_body` are the hot path: one pack and one append. `take` removes the next
    batch.

    `wake` is called when a message is added to the empty outbox. `flush` is called when a batch is
    large enough to be sent at once, and on each further message until it is taken. `max_body`
    rejects larger bodies, if they need chunks. `pack` encodes a message, by default as MessagePack.
    """

    __slots__ = (
        "_chunk_due",
        "_fanout",
        "_fanout_bodies",
        "_fanout_size",
        "_flows",
        "_flush",
        "_limit",
        "_max_body",
        "_needs_checks",
        "_pack",
        "_ready",
        "_scheduler",
        "_wake",
        "size",
    )

    def __init__(
        self,
        limit: int,
        wake: Callable[[], None] = _ignore,
        flush: Callable[[], None] = _ignore,
        max_body: float = inf,
        pack: Callable[[Any], bytes] | None = None,
    ) -> None:
        self.size = 0
        """Bytes that wait; only packed messages count with what packing adds."""
        self._max_body = max(CHUNK, max_body)
        self._limit = limit
        self._wake = wake
        self._flush = flush
        self._pack = pack or Packer().pack
        # Whether put_body must look at more than the size: a shared broadcast message or flows
        # wait, or the outbox is full.
        self._needs_checks = False
        self._ready: list[bytes] = []
        # The broadcast or event message that collects small bodies: its operation and name.
        self._fanout: tuple[int, str] | None = None
        self._fanout_bodies: list[bytes] = []
        self._fanout_size = 0
        self._scheduler = FlowScheduler(self._ready, self._pack)
        self._flows = self._scheduler.flows  # the same dictionary, to save a look-up
        self._chunk_due = False  # the last batch had no room for a message of a flow

    def put(self, message: tuple[Any, ...] | bytes) -> bool:
        """Queue a message without a large body."""
        if self._fanout:
            self._finish_fanout()
        size = self.size
        if size > REQUEST_BATCH and self._is_full(_CONTROL_RESERVE):
            return False
        data = self._pack(message)
        self._ready.append(data)
        self.size = size + len(data)
        if not size:
            self._wake()
        return True

    def put_after_bodies(self, message: tuple[Any, ...]) -> bool:
        """Queue a message that must not pass the large bodies which wait now."""
        if not self._scheduler.has_bodies():
            return self.put(message)
        if self._is_full(_CONTROL_RESERVE):
            return False
        data = self._pack(message)
        self._scheduler.add_behind_bodies(data)
        self.size += len(data)
        return True

    def put_body(self, message: tuple[Any, ...], body_index: int, key: Hashable = None) -> bool:
        """Queue a message whose body is field `body_index`.

        Messages with the same `key` stay in order; without a key, small ones pass large ones.
        """
        queued = self.size
        if not queued or self._needs_checks or len(message[body_index]) > CHUNK:
            return self._put_body_checked(message, body_index, key)
        pack = self._pack
        data = pack(message)
        self._ready.append(data)
        self.size = queued = queued + len(data)
        if queued >= REQUEST_BATCH:
            self._on_batch(key)
        return True

    def _put_body_checked(self, message: tuple[Any, ...], body_index: int, key: Hashable) -> bool:
        """Do what put_body does when the message is not simply one more small message."""
        if self._fanout:
            self._finish_fanout()
        if self._flows or len(message[body_index]) > CHUNK:
            return self._put_beside_flows(message, body_index, key)
        size = self.size
        if size > REQUEST_BATCH and self._is_full(0):
            return False
        data = self._pack(message)
        self._ready.append(data)
        self.size = size + len(data)
        if not size:
            self._wake()
        self._on_batch(key)
        return True

    def _put_beside_flows(self, message: tuple[Any, ...], body_index: int, key: Hashable) -> bool:
        """Queue a message that is large, or may have to stay behind a large one."""
        size = len(message[body_index])
        if size > self._max_body or (self.size > REQUEST_BATCH and self._is_full(0)):
            return False
        if not self.size:
            self._wake()
        if size <= CHUNK:
            flow = None if key is None else self._flows.get(key)
            data = self._pack(message)
            if flow is None:
                self._ready.append(data)
            else:
                self._scheduler.append(flow, data)
            self.size += len(data)
            return True
        self._scheduler.add_body(message, body_index, key)
        self.size += size
        self._needs_checks = True
        self._flush()
        return True

    def put_fanout(self, op: int, name: str, body: bytes) -> bool:
        """Queue a broadcast or event without headers; consecutive small ones share a message."""
        size = self.size
        counted = len(body)
        if counted > _MAX_SHARING_BODY or self._flows:
            return self.put_body((op, name, body, None), 2, (op, name))
        if size > REQUEST_BATCH and self._is_full(0):
            return False
        fanout = self._fanout
        if fanout is None or fanout[1] != name or fanout[0] != op:
            if fanout is not None:
                self._finish_fanout()
            self._fanout = (op, name)
            self._needs_checks = True
        self._fanout_bodies.append(body)
        counted += 1  # so that the outbox is not empty when only an empty body waits
        self._fanout_size += counted
        self.size += counted
        if not size:
            self._wake()
        if len(self._fanout_bodies) == MAX_SHARED_BODIES:
            self._finish_fanout()
            if self.size >= FANOUT_BATCH:
                self._flush()
        return True

    def _finish_fanout(self) -> None:
        """Pack the shared broadcast message and move it to the queue of small messages."""
        assert self._fanout
        op, name = self._fanout
        bodies = self._fanout_bodies
        self.size -= self._fanout_size
        # Reset first: packing raises for a name that UTF-8 cannot encode.
        self._fanout, self._fanout_bodies, self._fanout_size = None, [], 0
        data = self._pack((op, name, bodies[0] if len(bodies) == 1 else bodies, None))
        self._ready.append(data)
        self.size += len(data)
        self._update_checks()

    def put_packed(self, data: bytes, key: Hashable) -> bool:
        """Queue a message that was packed once for many receivers."""
        size = self.size
        if size > REQUEST_BATCH and self._is_full(0):
            return False
        flow = self._flows.get(key) if self._flows else None
        if flow is None:
            self._ready.append(data)
        else:
            self._scheduler.append(flow, data)
        self.size = size + len(data)
        if not size:
            self._wake()
        if self.size >= FANOUT_BATCH:
            self._flush()
        return True

    def put_in_flow(self, message: tuple[Any, ...] | bytes, key: Hashable) -> bool:
        """Queue a message of a tunnel, or one that must stay in order behind a request.

        The tunnel's credit bounds what waits here, not the limit of the outbox. False: more waits
        than the receiver can have granted.
        """
        if self._fanout:
            self._finish_fanout()
        if self.size > REQUEST_BATCH and self._is_full(_MAX_TUNNEL_BYTES):
            return False
        data = self._pack(message)
        flow = self._flows.get(key)
        if flow is not None:
            self._scheduler.append(flow, data)
        elif len(data) <= _MAX_SMALL_TUNNEL_MESSAGE:
            self._ready.append(data)
        else:
            self._scheduler.add_tunnel_message(data, key)
            self._needs_checks = True
        queued = self.size
        self.size = queued + len(data)
        if not queued:
            self._wake()
        if self.size >= FANOUT_BATCH:
            self._flush()
        return True

    def drop_flow(self, key: Hashable) -> None:
        """Drop the messages that wait for a closed tunnel, but not the request that opens it."""
        self.size -= self._scheduler.drop_tunnel_messages(key)
        self._chunk_due = self._chunk_due and bool(self._scheduler.active)
        self._update_checks()

    def take(self, max_size: int) -> bytes:
        """Remove and return the next batch: at least one message, or b"" when the outbox is empty.

        A batch has at most `max_size` bytes, except for the last message or chunk that starts
        within them.
        """
        if self._fanout:
            self._finish_fanout()
        ready = self._ready
        if not self._flows and self.size <= max_size:
            data = ready[0] if len(ready) == 1 else b"".join(ready)
            ready.clear()
            self.size = 0
            self._needs_checks = False
            return data
        return self._take_some(max_size)

    def _take_some(self, max_size: int) -> bytes:
        scheduler = self._scheduler
        batch: list[bytes] = []
        batch_size = 0
        if not self._chunk_due:
            batch = self._take_ready(max_size)
            batch_size = sum(map(len, batch))
            self.size -= batch_size
        scheduler.start_flows()
        # Flows get a share of the batches: small messages pass them but cannot starve them.
        active = scheduler.active
        self._chunk_due = bool(active) and batch_size >= max_size
        while active and batch_size < max_size:
            data, shrinks = scheduler.next_message()
            self.size -= shrinks
            batch.append(data)
            batch_size += len(data)
            if batch_size >= _MAX_BEFORE_CHUNK:
                break
        self._update_checks()
        return b"".join(batch)

    def _take_ready(self, max_size: int) -> list[bytes]:
        """Remove small messages up to `max_size` bytes, but at least one."""
        ready = self._ready
        enough = min(max_size, _MAX_BEFORE_CHUNK) if self._scheduler.active else max_size
        size = 0
        count = 0
        for data in ready:
            size += len(data)
            if size > max_size and count:
                break
            count += 1
            if size >= enough:
                break
        batch = ready[:count]
        del ready[:count]
        self._scheduler.ready_sent += count
        return batch

    def close(self) -> None:
        """Drop all messages and both callbacks.

        The callbacks form reference cycles with their owner, so that the messages would stay in
        memory until the next full garbage collection.
        """
        self._wake = self._flush = _ignore
        self._fanout, self._fanout_bodies, self._fanout_size = None, [], 0
        self._ready.clear()
        self._scheduler.clear()
        self.size = 0
        self._chunk_due = False
        self._update_checks()

    def _on_batch(self, key: Hashable) -> None:
        # Messages with a key are broadcasts: no caller waits, and larger batches cost less.
        if self.size >= (REQUEST_BATCH if key is None else FANOUT_BATCH):
            self._flush()
        self._update_checks()

    def _update_checks(self) -> None:
        cost = self.size + _MESSAGE_OVERHEAD * len(self._ready)
        self._needs_checks = bool(self._fanout or self._flows) or cost > self._limit

    def _is_full(self, reserve: int) -> bool:
        """Whether the messages cost more memory than the limit plus `reserve`."""
        count = len(self._ready) + self._scheduler.message_count
        return self.size + _MESSAGE_OVERHEAD * count > self._limit + reserve

    def __bool__(self) -> bool:
        return self.size > 0
