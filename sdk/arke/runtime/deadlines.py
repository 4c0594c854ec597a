"""The requests a program waits for: each ends exactly once, at its deadline at the latest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from arke.errors import ConnectionLost, RequestTimeout

_EARLIEST_SCAN = 0.001
_SCAN_COST = 2e-6  # seconds between two scans for each open call: some 5 % of a core at most


class Call:
    """One request under way. `message` asks for it, under the call's present id."""

    __slots__ = ("again", "deadline", "future", "id", "idempotent", "message", "sent")

    def __init__(self, future: asyncio.Future[Any], deadline: float, idempotent: bool) -> None:
        self.id = 0
        self.future = future
        self.deadline = deadline
        self.idempotent = idempotent
        self.message: tuple[Any, ...] = ()
        self.sent = False
        self.again = True
        """It may be sent again after its relay was lost, where nothing was begun."""


class Calls:
    """Open calls by id, and one timer for all their deadlines.

    The timer stands at the earliest deadline and then looks at every open call: with the usual
    equal time-outs it fires about once per time-out, and the hot path pays one comparison.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._open: dict[int, Call] = {}
        self._last = 0
        self._timer: asyncio.TimerHandle | None = None
        self._fires_at = float("inf")
        self.late = 0
        """Answers that came after nobody waited any more."""

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, call_id: int) -> bool:
        return call_id in self._open

    def add(self, call: Call) -> int:
        """Give the call an id above all earlier ones and watch its deadline. Returns the id."""
        self._last = number = self._last + 1
        call.id = number
        self._open[number] = call
        if call.deadline < self._fires_at:
            self._set_timer(call.deadline)
        return number

    def take(self, call_id: int) -> Call | None:
        """End the waiting for a call; None if nobody waits for it."""
        call = self._open.pop(call_id, None)
        if call is None:
            self.late += 1
        return call

    def drop(self, call: Call) -> None:
        self._open.pop(call.id, None)

    def unsent(self) -> list[Call]:
        """The calls that wait for a link with room."""
        return [call for call in self._open.values() if not call.sent]

    def lost(self, reason: str, last_accepted: int | None) -> None:
        """The link that carried the calls ended: those that are safe to send again are unsent.

        Calls never sent, and calls after the last that a leaving relay accepted, were never
        started; idempotent ones may be started twice. The others fail with ConnectionLost.
        """
        again: list[Call] = []
        for call in list(self._open.values()):
            del self._open[call.id]
            unaccepted = last_accepted is not None and call.id > last_accepted
            if call.again and (not call.sent or unaccepted or call.idempotent):
                again.append(call)
            elif not call.future.done():
                call.future.set_exception(ConnectionLost(reason))
        for call in again:
            call.sent = False
            self.add(call)

    def fail_all(self, error: Exception) -> None:
        for call in self._open.values():
            if not call.future.done():
                call.future.set_exception(error)
        self._open.clear()
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
        expired = [call for call in self._open.values() if call.deadline <= now]
        for call in expired:
            del self._open[call.id]
            if not call.future.done():
                call.future.set_exception(RequestTimeout("no answer in time"))
        if self._open:
            earliest = min(call.deadline for call in self._open.values())
            pause = _EARLIEST_SCAN + _SCAN_COST * len(self._open)
            self._set_timer(max(earliest, now + pause))
