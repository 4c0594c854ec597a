"""An outbox that cuts large bodies into chunks, and lets small messages pass them.

A large body travels as `[CHUNK, stream, total, data]` messages, followed by its own message with
the stream's number in place of the body. Streams and tunnels share the link in turns and small
messages go first, except those that must keep their order behind a large one of the same sender and
name. The other end has an `Inbox`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from math import inf
from typing import Any, Final

from msgpack import Packer

from arke.wire.chunked_body import Chunked
from arke.wire.limits import BATCH, CHUNK, HALF_SENT, MAX_CASTS, SMALL_BATCH
from arke.wire.messages import Op

_CHUNK_OP: Final = int(Op.CHUNK)
_RESERVE: Final = 1024 * 1024  # octets kept for messages without a body, on which others wait
_SMALL_PART: Final = 4096  # octets of a tunnel's message that may go ahead like any other
_SMALL_CAST: Final = 1024  # octets of a body that is worth sharing a message
_OVERHEAD: Final = 48  # octets that Python needs beside a message's own: small ones are not free
_PARTS = 192 * 1024 * 1024  # more than the credit of all tunnels that one receiver may have
_RUNNING_START: Final = 32 * 1024  # small messages that may go ahead of a chunk in one batch


def _nothing() -> None:
    """For an outbox that is looked after anyway."""


class _Large:
    """One message whose body is being cut."""

    __slots__ = ("at", "body", "fields", "last", "number", "sent", "stream")

    def __init__(self, fields: tuple[Any, ...], at: int, number: int) -> None:
        self.number = number
        """How many were put before it, and it."""
        self.fields = fields
        self.at = at
        self.body = fields[at]
        self.stream = 0
        self.sent = 0
        self.last = b""
        """The message itself, once nothing but it is left to send."""


class Outbox:
    """Messages on their way to one receiver, bounded in octets.

    `put` is the hot path: one pack, one append. `take` empties it in an order that lets small
    messages pass. `wake` is called when the first message comes, `hurry` as soon as enough for a
    batch of its own is there and whenever more comes then. Bodies that need chunks and are over
    `largest` octets find no room. `pack` makes octets of a message; unless given, MessagePack does.
    """

    __slots__ = (
        "_behind",
        "_careful",
        "_cast",
        "_casts",
        "_casts_size",
        "_coming",
        "_flows",
        "_half_sent",
        "_hurry",
        "_larges",
        "_largest",
        "_late",
        "_left",
        "_limit",
        "_owed",
        "_pack",
        "_ready",
        "_streams",
        "_turn",
        "_waiting",
        "_wake",
        "size",
    )

    def __init__(
        self,
        limit: int,
        wake: Callable[[], None] = _nothing,
        hurry: Callable[[], None] = _nothing,
        largest: float = inf,
        pack: Callable[[Any], bytes] | None = None,
    ) -> None:
        self.size = 0
        self._largest = max(CHUNK, largest)
        self._limit = limit
        self._wake = wake
        self._hurry = hurry
        self._pack = pack or Packer().pack
        self._careful = False  # a cast or large bodies wait, or there is no room
        self._ready: list[bytes] = []
        self._cast: tuple[int, str] | None = None  # operation and name of the casts that wait
        self._casts: list[bytes] = []
        self._casts_size = 0
        self._left = 0  # small messages that left while large ones were here
        # The flow of an order begins with a large one; the flow of a tunnel has none.
        self._flows: dict[Hashable, deque[_Large | bytes]] = {}
        # Flows that have not begun, each behind so many small messages: of orders, of tunnels.
        self._waiting: deque[tuple[Hashable, int]] = deque()
        self._coming: deque[tuple[Hashable, int]] = deque()
        self._turn: deque[Hashable] = deque()  # flows that have begun
        self._behind = 0  # messages in flows
        self._larges = 0  # that were ever put
        self._late: deque[tuple[int, bytes]] = deque()  # each behind so many of them
        self._half_sent = 0
        self._streams = 0
        self._owed = False  # the last batch had no room for a chunk

    def put(self, message: tuple[Any, ...] | bytes) -> bool:
        """Queue a message without a large body. False: there is no room, and it was dropped."""
        if self._cast:
            self._end_cast()
        size = self.size
        if size > SMALL_BATCH and self._full(_RESERVE):
            return False
        data = self._pack(message)
        self._ready.append(data)
        self.size = size + len(data)
        if not size:
            self._wake()
        return True

    def put_behind(self, message: tuple[Any, ...]) -> bool:
        """The same, for one that must not pass a large body which waits now."""
        if not self._first_large():
            return self.put(message)
        if self._full(_RESERVE):
            return False
        data = self._pack(message)
        self._late.append((self._larges, data))
        self.size += len(data)
        return True

    def put_body(self, message: tuple[Any, ...], at: int, order: Hashable = None) -> bool:
        """Queue a message whose body is field `at`; those with an equal `order` stay in order."""
        queued = self.size
        if not queued or self._careful or len(message[at]) > CHUNK:
            return self._put_carefully(message, at, order)
        pack = self._pack
        data = pack(message)
        self._ready.append(data)
        self.size = queued = queued + len(data)
        if queued >= SMALL_BATCH:
            self._grown(order)
        return True

    def _put_carefully(self, message: tuple[Any, ...], at: int, order: Hashable) -> bool:
        """The same where there is more to look at than that it is one small message more."""
        if self._cast:
            self._end_cast()
        if self._flows or len(message[at]) > CHUNK:
            return self._put_behind(message, at, order)
        size = self.size
        if size > SMALL_BATCH and self._full(0):
            return False
        data = self._pack(message)
        self._ready.append(data)
        self.size = size + len(data)
        if not size:
            self._wake()
        self._grown(order)
        return True

    def _grown(self, order: Hashable) -> None:
        # Where order matters nobody waits for each: larger batches cost less.
        if self.size >= (SMALL_BATCH if order is None else BATCH):
            self._hurry()
        self._look()

    def _look(self) -> None:
        waiting = self.size + _OVERHEAD * len(self._ready)
        self._careful = bool(self._cast or self._flows) or waiting > self._limit

    def _full(self, reserve: int) -> bool:
        """What waits here costs more than the limit and `reserve`."""
        waiting = len(self._ready) + self._behind + len(self._late)
        return self.size + _OVERHEAD * waiting > self._limit + reserve

    def put_cast(self, op: int, name: str, body: bytes) -> bool:
        """Queue a broadcast or event without headers; small ones in a row travel as one message."""
        size = self.size
        octets = len(body)
        if octets > _SMALL_CAST or self._flows:
            return self.put_body((op, name, body, None), 2, (op, name))
        if size > SMALL_BATCH and self._full(0):
            return False
        cast = self._cast
        if cast is None or cast[1] != name or cast[0] != op:
            if cast is not None:
                self._end_cast()
            self._cast = (op, name)
            self._careful = True
        self._casts.append(body)
        octets += 1  # or nobody would see that an empty one waits
        self._casts_size += octets
        self.size += octets
        if not size:
            self._wake()
        if len(self._casts) == MAX_CASTS:
            self._end_cast()
            if self.size >= BATCH:
                self._hurry()
        return True

    def _end_cast(self) -> None:
        assert self._cast
        op, name = self._cast
        bodies = self._casts
        self.size -= self._casts_size
        # Before anything can go wrong: what cannot be packed must not spoil what comes next.
        self._cast, self._casts, self._casts_size = None, [], 0
        data = self._pack((op, name, bodies[0] if len(bodies) == 1 else bodies, None))
        self._ready.append(data)
        self.size += len(data)
        self._look()

    def put_packed(self, data: bytes, order: Hashable) -> bool:
        """Queue a message that was packed once for many receivers."""
        size = self.size
        if size > SMALL_BATCH and self._full(0):
            return False
        flow = self._flows.get(order) if self._flows else None
        if flow is None:
            self._ready.append(data)
        else:
            flow.append(data)
            self._behind += 1
        self.size = size + len(data)
        if not size:
            self._wake()
        if self.size >= BATCH:
            self._hurry()
        return True

    def put_part(self, message: tuple[Any, ...] | bytes, tunnel: Hashable) -> bool:
        """Queue a message of a tunnel, in its order.

        Its bound is the tunnel's credit. False: it was dropped, for so much is waiting as no
        receiver can have granted before it read.
        """
        if self._cast:
            self._end_cast()
        if self.size > SMALL_BATCH and self._full(_PARTS):
            return False
        data = self._pack(message)
        flow = self._flows.get(tunnel)
        if flow is not None:
            flow.append(data)
            self._behind += 1
        elif len(data) <= _SMALL_PART:
            self._ready.append(data)
        else:
            self._flows[tunnel] = deque((data,))
            self._behind += 1
            self._coming.append((tunnel, self._left + len(self._ready)))
            self._careful = True
        queued = self.size
        self.size = queued + len(data)
        if not queued:
            self._wake()
        if self.size >= BATCH:
            self._hurry()
        return True

    def drop_parts(self, tunnel: Hashable) -> None:
        """Forget what waits for a tunnel that has ended; not the call that opens it, if it does."""
        flow = self._flows.get(tunnel)
        if flow is None:
            return
        larges = deque[_Large | bytes](item for item in flow if isinstance(item, _Large))
        self.size -= sum(len(part) for part in flow if isinstance(part, bytes))
        self._behind -= len(flow) - len(larges)
        if larges:
            self._flows[tunnel] = larges
        else:
            del self._flows[tunnel]
            if tunnel in self._turn:
                self._turn.remove(tunnel)
                self._owed = self._owed and bool(self._turn)
            else:
                # Left there, it would hold up whoever comes behind it, or have two turns at once.
                self._coming = deque(each for each in self._coming if each[0] != tunnel)
        self._look()

    def _put_behind(self, message: tuple[Any, ...], at: int, order: Hashable) -> bool:
        """Queue a message that is large, or may have to keep behind one that is."""
        size = len(message[at])
        if size > self._largest or (self.size > SMALL_BATCH and self._full(0)):
            return False
        if not self.size:
            self._wake()
        flow = None if order is None else self._flows.get(order)
        if size <= CHUNK:
            data = self._pack(message)
            (self._ready if flow is None else flow).append(data)
            self._behind += flow is not None
            self.size += len(data)
            return True
        self._larges += 1
        large = _Large(message, at, self._larges)
        self._behind += 1
        if flow is not None:
            flow.append(large)
        else:
            key = large if order is None else order
            self._flows[key] = deque((large,))
            self._wait(key)
        self.size += size
        self._careful = True
        self._hurry()
        return True

    def take(self, room: int) -> bytes:
        """The next octets to send, at least one message; empty when there is none.

        They are at most `room`, but for a single message or chunk that begins within it.
        """
        if self._cast:
            self._end_cast()
        ready = self._ready
        if not self._flows and self.size <= room:
            data = ready[0] if len(ready) == 1 else b"".join(ready)
            ready.clear()
            self.size = 0
            self._careful = False
            return data
        return self._take_some(room)

    def _take_some(self, room: int) -> bytes:
        parts: list[bytes] = []
        taken = 0
        if not self._owed:
            parts = self._take_ready(room)
            taken = sum(map(len, parts))
        self._begin()
        # Large bodies move with every batch: small messages pass them but cannot starve them.
        self._owed = bool(self._turn) and taken >= room
        while self._turn and taken < room:
            part = self._next_part()
            parts.append(part)
            taken += len(part)
            if taken >= _RUNNING_START:
                break
        self.size -= taken
        self._look()
        return b"".join(parts)

    def _take_ready(self, room: int) -> list[bytes]:
        """Small messages within the room; the first one whatever its size."""
        ready = self._ready
        enough = min(room, _RUNNING_START) if self._turn else room
        taken = 0
        count = 0
        for data in ready:
            taken += len(data)
            if taken > room and count:
                break
            count += 1
            if taken >= enough:
                break
        parts = ready[:count]
        del ready[:count]
        self._left += count
        return parts

    def _wait(self, key: Hashable) -> None:
        # What was put before it leaves before it begins: nothing it must follow is left behind.
        self._waiting.append((key, self._left + len(self._ready)))

    def _begin(self) -> None:
        """Begin the flows whose time has come; bodies as far as the receiver has room for them."""
        while self._coming and self._coming[0][1] <= self._left:
            self._turn.append(self._coming.popleft()[0])
        while self._waiting:
            key, after = self._waiting[0]
            large = self._flows[key][0]
            assert isinstance(large, _Large)
            half_sent = self._half_sent + len(large.body)
            if after > self._left or (self._half_sent and half_sent > HALF_SENT):
                return
            self._half_sent = half_sent
            large.stream = self._streams
            self._streams += 1
            self._turn.append(self._waiting.popleft()[0])

    def _next_part(self) -> bytes:
        """A message of the tunnel whose turn it is; or a chunk of a body, or what is behind it."""
        flow = self._flows[self._turn[0]]
        large = flow[0]
        if not isinstance(large, _Large):
            flow.popleft()
            self._behind -= 1
            if flow:
                self._turn.rotate(-1)
            else:
                del self._flows[self._turn.popleft()]
            return large
        if large.last:
            self._end(flow, large)
            return large.last
        body = large.body
        at = large.sent
        data = body.chunk(at) if type(body) is Chunked else body[at : at + CHUNK]
        large.sent += len(data)
        part: bytes = self._pack((_CHUNK_OP, large.stream, len(body), data))
        self.size += len(part) - len(data)
        if large.sent < len(body):
            self._turn.rotate(-1)
        else:
            fields, at = large.fields, large.at
            large.last = self._pack((*fields[:at], large.stream, *fields[at + 1 :]))
            self.size += len(large.last)
        return part

    def close(self) -> None:
        """Nothing is sent any more: let go of what waits, and of those who were told of it.

        They hold this outbox in their turn, and would all stay until a collection of everything,
        which may be an hour away: with up to the limit of octets each.
        """
        self._wake = self._hurry = _nothing
        self._cast, self._casts, self._casts_size = None, [], 0
        for waiting in (
            self._ready,
            self._flows,
            self._waiting,
            self._coming,
            self._turn,
            self._late,
        ):
            waiting.clear()
        self.size = self._behind = self._half_sent = 0
        self._owed = False
        self._look()

    def _first_large(self) -> int:
        """The number of the first large body that waits; 0: there is none."""
        items = (item for flow in self._flows.values() for item in flow)
        return min((item.number for item in items if isinstance(item, _Large)), default=0)

    def _end(self, flow: deque[_Large | bytes], large: _Large) -> None:
        """The body is sent: what kept behind it goes on."""
        self._end_flow(flow, large)
        if self._late:
            first = self._first_large()
            while self._late and (not first or self._late[0][0] < first):
                self._ready.append(self._late.popleft()[1])

    def _end_flow(self, flow: deque[_Large | bytes], large: _Large) -> None:
        key = self._turn.popleft()
        self._half_sent -= len(large.body)
        flow.popleft()
        self._behind -= 1
        while flow:
            item = flow[0]
            if isinstance(item, _Large):
                self._wait(key)
                return
            self._ready.append(item)
            flow.popleft()
            self._behind -= 1
        del self._flows[key]

    def __bool__(self) -> bool:
        return self.size > 0
