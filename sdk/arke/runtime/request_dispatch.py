"""Dispatch requests to the request handler of a service, within its limits and their deadlines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any, Final

from arke.limits import Limits
from arke.mesh import Mesh
from arke.request import Request
from arke.runtime.error_text import describe_error, error_type
from arke.runtime.handler_errors import HandlerErrors
from arke.runtime.handler_pool import HandlerPool, is_task_cancelled
from arke.runtime.relay_connection import Message, RelayConnection
from arke.values import NO_HEADERS
from arke.wire.messages import Op
from arke.wire.transit_time import TransitTime

_REPLY: Final = Op.REPLY.value
_FAULT: Final = Op.FAULT.value
_REFUSED: Final = Op.REFUSED.value
_REQUEST_OVERHEAD: Final = 256  # bytes that a waiting request costs beside its body
_CANCELLATION_SECONDS: Final = 0.1
"""How long a handler may take to end after it was cancelled, before it counts as overdue."""


class _OpenRequest:
    """A request that is queued or handled, and the connection for its reply.

    Not a tuple: mypyc does not keep the identity of tuples, by which the pool finds its work.
    """

    __slots__ = ("cancellable", "connection", "request", "started")

    def __init__(self, request: Request, connection: RelayConnection) -> None:
        self.request = request
        self.connection = connection
        self.cancellable = True  # REQUEST_CANCELLED may still arrive
        self.started = False


class RequestDispatcher:
    """The queue of requests, and their running handlers.

    A coroutine handler is cancelled at the deadline of its request, unless `cancels_at_deadline` is
    False. A handler in a thread cannot be cancelled: it can read `request.cancelled`. While as many
    handlers as the limit allows run past their deadlines, all requests are refused.
    """

    def __init__(
        self,
        mesh: Mesh,
        limits: Limits,
        errors: HandlerErrors,
        *,
        handler: Callable[[Request], Awaitable[Any]] | None,
        can_cancel: bool,
        cancels_at_deadline: bool,
    ) -> None:
        self.expired = 0
        """Requests that arrived, or reached a handler, after their deadline."""
        self.timed_out = 0
        """Requests whose handler still ran at the deadline."""
        self._loop = asyncio.get_running_loop()
        self._mesh = mesh
        self._max_handlers = limits.requests
        self._max_bytes = limits.request_bytes
        self._errors = errors
        self._handler = handler
        self._can_cancel = can_cancel
        self._cancels_at_deadline = cancels_at_deadline
        self._pool = HandlerPool(limits.requests, self._handle)
        self._open: dict[int, _OpenRequest] = {}
        """Requests of the current connection by id, queued or running, whose callers wait."""
        self._bytes = 0  # of queued requests
        self._stopping = False
        self._is_stuck = False  # every handler is overdue
        self._next_check = inf
        self._check_timer: asyncio.TimerHandle | None = None
        self._transit_time = TransitTime()
        self._last_stamp = 0
        self._last_arrival = 0.0
        self._last_delay = 0.0

    @property
    def queued(self) -> int:
        """Number of requests that wait for a handler."""
        return self._pool.queued

    @property
    def running(self) -> int:
        return len(self._pool.running())

    async def wait_idle(self) -> None:
        await self._pool.wait_idle()

    async def stop(self) -> None:
        """Cancel the running handlers, and refuse the queued requests: others may handle them."""
        self._stopping = True
        if self._check_timer:
            self._check_timer.cancel()
        queued = await self._pool.stop()
        self._refuse(queued, "the service stopped")

    def on_attached(self) -> None:
        """Prepare for another relay, which has another clock and other request ids."""
        self._transit_time = TransitTime()
        for work in self._open.values():
            work.cancellable = False
        self._open.clear()

    def remaining_ms(self, remaining_ms: float, stamp: int, arrival: float) -> float:
        """Return what remains of a time that the relay stamped, at its arrival in seconds."""
        if stamp != self._last_stamp or arrival != self._last_arrival:
            # Messages of one read mostly have the same stamp: the delay is computed once.
            self._last_stamp, self._last_arrival = stamp, arrival
            self._last_delay = self._transit_time.delay(stamp, arrival * 1000)
        remaining = remaining_ms - self._last_delay
        if remaining <= 0:
            self.expired += 1
        return remaining

    # Messages of the relay.

    def on_deliver(self, message: Message, connection: RelayConnection) -> None:
        request_id: int  # a wrong type raises here, not in the handler's task
        sender: str
        _, request_id, body, remaining_ms, stamp, sender, headers = message
        if type(body) is not bytes:
            body = connection.body(message, 2)
        now = connection.now
        remaining = self.remaining_ms(remaining_ms, stamp, now)
        if remaining <= 0:
            return
        waiting = self._bytes + _REQUEST_OVERHEAD + (0 if body is None else len(body))
        if waiting > self._max_bytes or self._is_stuck or body is None or self._handler is None:
            refusal = self._refusal(body)
            if refusal:
                connection.send((_REFUSED, request_id, refusal))
                return
        self._bytes = waiting
        deadline = now + remaining / 1000
        request = Request(request_id, body, deadline, sender, headers or NO_HEADERS, self._mesh)
        work = self._open[request_id] = _OpenRequest(request, connection)
        self._pool.put(work)

    def _refusal(self, body: bytes | None) -> str:
        """Why a request is refused; empty if it is queued."""
        if body is None:
            return "no room to reassemble the request"
        if self._handler is None:
            return "no request handler"
        if self._is_stuck:
            return "every handler has run past its deadline"
        return "full" if self._bytes else ""

    def on_cancelled(self, message: Message, connection: RelayConnection) -> None:
        """Handle REQUEST_CANCELLED: the caller no longer waits."""
        work = self._open.pop(message[1], None)
        if work is not None:
            work.cancellable = False
            self._cancel(work)

    def _cancel(self, work: _OpenRequest) -> None:
        request = work.request
        request.cancelled = True
        if not work.started:
            self._bytes -= len(request.body) + _REQUEST_OVERHEAD
            self._pool.cancel_queued(work)
        elif self._can_cancel:
            self._pool.cancel_running(work)

    # Handlers.

    async def _handle(self, work: _OpenRequest) -> None:
        request, connection = work.request, work.connection
        self._bytes -= len(request.body) + _REQUEST_OVERHEAD
        work.started = True
        handler = self._handler
        assert handler
        if request.deadline < self._next_check:
            self._check_at(request.deadline)
        try:
            if request.deadline <= time.monotonic():
                self.expired += 1
                return
            reply = await handler(request)
            _check_reply(reply, connection.max_message)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and is_task_cancelled():
                self._report_cancellation(work)
                raise
            self._report(error, work)
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
        else:
            if connection.congested:
                await connection.wait_for_room()
            self._reply(reply, work)
        finally:
            self._is_stuck = False
            if work.cancellable:
                self._open.pop(request.request_id, None)

    def _reply(self, reply: bytes, work: _OpenRequest) -> None:
        request, connection = work.request, work.connection
        if request.cancelled:
            return  # the caller no longer waits
        if not connection.send_body((_REPLY, request.request_id, reply), 2):
            text = "the service has no room to queue the reply"
            connection.send((_FAULT, request.request_id, "Overloaded", text))

    def _report_cancellation(self, work: _OpenRequest) -> None:
        """Tell a caller that still waits why the handler's task was cancelled."""
        request, connection = work.request, work.connection
        if not request.cancelled:
            text = "the service stopped" if self._stopping else "the handler's task was cancelled"
            connection.send((_FAULT, request.request_id, "Cancelled", text))

    def _report(self, error: BaseException, work: _OpenRequest) -> None:
        """Report what the handler raised, to the caller and to the operator of the service."""
        request, connection = work.request, work.connection
        if not request.cancelled:
            fault = (_FAULT, request.request_id, error_type(error), describe_error(error))
            connection.send(fault)
        self._errors.report("request", error, request)

    # Deadlines.

    def _check_at(self, when: float) -> None:
        """Check the deadlines of running handlers at a time of `time.monotonic()`."""
        if self._check_timer:
            self._check_timer.cancel()
        self._next_check = when
        delay = max(0.0, when - time.monotonic())
        self._check_timer = self._loop.call_later(delay, self._check_deadlines)

    def _check_deadlines(self) -> None:
        now = time.monotonic()
        self._check_timer = None
        self._next_check = inf
        next_check = inf
        overdue = 0
        for work in self._pool.running():
            request = work.request
            if now < request.deadline:
                next_check = min(next_check, request.deadline)
                continue
            allowed = request.deadline + (_CANCELLATION_SECONDS if self._can_cancel else 0.0)
            if now >= allowed:
                overdue += 1
            else:
                next_check = min(next_check, allowed)
            if not request.cancelled:
                self._time_out(work)
        if overdue >= self._max_handlers:
            self._is_stuck = True
            self._refuse(self._pool.take_queued(), "every handler has run past its deadline")
        if next_check < inf:
            self._check_at(next_check)

    def _time_out(self, work: _OpenRequest) -> None:
        """Cancel a running handler at its deadline. The caller's SDK has timed out too."""
        request = work.request
        self.timed_out += 1
        self._errors.report_timeout()
        if self._cancels_at_deadline:
            self._cancel(work)
        request.cancelled = True

    def _refuse(self, queued: list[_OpenRequest], reason: str) -> None:
        for work in queued:
            request = work.request
            self._bytes -= len(request.body) + _REQUEST_OVERHEAD
            if work.cancellable:
                self._open.pop(request.request_id, None)
            work.connection.send((_REFUSED, request.request_id, reason))


def _check_reply(reply: object, max_message: int) -> None:
    if type(reply) is not bytes:
        raise TypeError(f"the handler must return bytes (got {type(reply).__name__})")
    if len(reply) > max_message:
        raise ValueError(f"the reply has {len(reply)} bytes; the relay's limit is {max_message}")
