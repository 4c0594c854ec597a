"""Send queue: senders of broadcasts and events wait in order for a connection with room."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from types import TracebackType
from typing import Protocol, Self

from arke.errors import RequestTimeout
from arke.runtime.relay_connection import RelayConnection


class ConnectionSource(Protocol):
    """What the queue needs of the attachment."""

    connection: RelayConnection | None

    @property
    def address(self) -> str: ...

    def check_open(self) -> None: ...


class SendQueue:
    """First come, first served: a sender waits while another one waits before it.

    Without the queue a message could be sent before an earlier one of the same program.
    """

    def __init__(self, source: ConnectionSource) -> None:
        self.source = source
        # Ordered, because the first entry of a plain dict takes longer to find with each removal.
        self.places: OrderedDict[QueuePlace, asyncio.Future[None] | None] = OrderedDict()
        """The waiting senders, first to last, each with what it awaits."""

    def __bool__(self) -> bool:
        return bool(self.places)

    def enter(self, deadline: float) -> QueuePlace:
        """Create a place at the end of the queue, held during its `with` block."""
        return QueuePlace(self, deadline)

    def wake(self) -> None:
        """Let every waiting sender check the connection again."""
        for future in self.places.values():
            _wake(future)


class QueuePlace:
    """The place of one sender in the queue."""

    def __init__(self, queue: SendQueue, deadline: float) -> None:
        self._queue = queue
        self._deadline = deadline

    def __enter__(self) -> Self:
        self._queue.places[self] = None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        places = self._queue.places
        del places[self]
        if places:
            _wake(next(iter(places.values())))

    async def connection(self) -> RelayConnection:
        """Return the connection once it has room and this place is the first one.

        Raises MeshClosed, or RequestTimeout when the deadline passes first.
        """
        source, places = self._queue.source, self._queue.places
        while True:
            source.check_open()
            connection = source.connection
            if connection is not None and connection.closed.done():
                connection = None  # the attachment has not noticed yet
            is_first = next(iter(places)) is self
            if connection is not None and not connection.congested and is_first:
                return connection
            future = places[self] = asyncio.get_running_loop().create_future()
            remaining = max(0.0, self._deadline - time.monotonic())
            woken, _ = await asyncio.wait((future,), timeout=remaining)
            if not woken:
                state = "not attached to" if connection is None else "congested at"
                raise RequestTimeout(f"timed out: {state} the relay at {source.address}")


def _wake(future: asyncio.Future[None] | None) -> None:
    if future and not future.done():
        future.set_result(None)
