"""Deadlines of pending requests: a table of the requests, and one timer for all of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from arke.errors import RequestTimeout

_MIN_SCAN_INTERVAL = 0.001
_SCAN_INTERVAL_PER_REQUEST = 2e-6  # a scan takes a twentieth of it: scans use 5 % of a core at most


class PendingRequest:
    """A request that waits for its reply. `message` is what was, or will be, sent for it."""

    __slots__ = ("deadline", "future", "idempotent", "message", "request_id", "resendable", "sent")

    def __init__(self, future: asyncio.Future[Any], deadline: float, idempotent: bool) -> None:
        self.request_id = 0
        self.future = future
        self.deadline = deadline
        self.idempotent = idempotent
        self.message: tuple[Any, ...] = ()
        self.sent = False
        self.resendable = True
        """False for requests to the relay itself, which are never sent to another relay."""


class PendingRequests:
    """Pending requests by request_id. Each ends exactly once.

    That is at its deadline at the latest; with many requests pending, a little later.
    The timer is set to the earliest deadline and then scans all pending requests. With the usual
    equal timeouts it fires about once per timeout, and adding a request costs one comparison.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._pending: dict[int, PendingRequest] = {}
        self._last_id = 0
        self._timer: asyncio.TimerHandle | None = None
        self._fires_at = float("inf")
        self.late = 0
        """Replies that arrived after their request had ended."""

    def __len__(self) -> int:
        return len(self._pending)

    def __contains__(self, request_id: int) -> bool:
        return request_id in self._pending

    def add(self, request: PendingRequest) -> int:
        """Assign the next request_id and watch the deadline. Returns the request_id."""
        self._last_id = request_id = self._last_id + 1
        request.request_id = request_id
        self._pending[request_id] = request
        if request.deadline < self._fires_at:
            self._set_timer(request.deadline)
        return request_id

    def take(self, request_id: int) -> PendingRequest | None:
        """Remove and return a request whose outcome has arrived; None if it has ended before."""
        request = self._pending.pop(request_id, None)
        if request is None:
            self.late += 1
        return request

    def drop(self, request: PendingRequest) -> None:
        """Remove a request that was cancelled, or cannot be sent."""
        self._pending.pop(request.request_id, None)

    def take_all(self) -> list[PendingRequest]:
        """Remove and return all requests, oldest first."""
        requests = list(self._pending.values())
        self._pending.clear()
        return requests

    def unsent(self) -> list[PendingRequest]:
        """Return the requests that wait for a connection with room."""
        return [request for request in self._pending.values() if not request.sent]

    def fail_all(self, error: Exception) -> None:
        """End every request with an error, and stop the timer."""
        for request in self._pending.values():
            if not request.future.done():
                request.future.set_exception(error)
        self._pending.clear()
        if self._timer:
            self._timer.cancel()
            self._timer = None
            self._fires_at = float("inf")

    def _set_timer(self, at: float) -> None:
        if self._timer:
            self._timer.cancel()
        self._fires_at = at
        self._timer = self._loop.call_later(max(0.0, at - self._clock()), self._scan)

    def _scan(self) -> None:
        self._timer = None
        self._fires_at = float("inf")
        now = self._clock()
        expired = [request for request in self._pending.values() if request.deadline <= now]
        for request in expired:
            del self._pending[request.request_id]
            if not request.future.done():
                request.future.set_exception(RequestTimeout("no reply before the deadline"))
        if self._pending:
            earliest = min(request.deadline for request in self._pending.values())
            interval = _MIN_SCAN_INTERVAL + _SCAN_INTERVAL_PER_REQUEST * len(self._pending)
            self._set_timer(max(earliest, now + interval))
