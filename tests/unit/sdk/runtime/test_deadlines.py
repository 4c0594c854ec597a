"""Pending requests: each ends once, at its deadline at the latest; resent only if safe."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arke.errors import ConnectionLost, MeshClosed, RequestTimeout
from arke.runtime.deadlines import PendingRequest, PendingRequests
from arke.runtime.resend import requeue_or_fail

SLACK = 0.01
"""Seconds by which an expiry may be late: scans have a minimum interval."""


@dataclass(eq=False)
class Timer:
    at: float
    run: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class Clock:
    """A simulated clock with the timers of a loop; futures belong to a real loop."""

    loop: asyncio.AbstractEventLoop
    now: float = 1000.0
    fired: int = 0
    timers: list[tuple[float, int, Timer]] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=count)

    def monotonic(self) -> float:
        return self.now

    def call_later(self, delay: float, run: Callable[[], None]) -> Timer:
        assert delay >= 0
        timer = Timer(self.now + delay, run)
        heapq.heappush(self.timers, (timer.at, next(self.numbers), timer))
        return timer

    def until(self, now: float) -> None:
        while self.timers and self.timers[0][0] <= now:
            _, _, timer = heapq.heappop(self.timers)
            self.now = max(self.now, timer.at)
            if not timer.cancelled:
                self.fired += 1
                timer.run()
        self.now = now

    @property
    def set(self) -> int:
        return sum(not timer.cancelled for _, _, timer in self.timers)


@dataclass
class RequestTable:
    """Pending requests on a simulated clock."""

    clock: Clock

    def __post_init__(self) -> None:
        self.requests = PendingRequests(self.clock, self.clock.monotonic)  # type: ignore[arg-type]

    def add(self, timeout: float, *, idempotent: bool = False, sent: bool = True) -> PendingRequest:
        deadline = self.clock.now + timeout
        request = PendingRequest(self.clock.loop.create_future(), deadline, idempotent)
        self.requests.add(request)
        request.sent = sent
        return request


@pytest.fixture
def table() -> Iterator[RequestTable]:
    loop = asyncio.new_event_loop()
    yield RequestTable(Clock(loop))
    loop.close()


def outcome(request: PendingRequest) -> object:
    """How a request ended; None while it is pending."""
    if not request.future.done():
        return None
    error = request.future.exception()
    return "answered" if error is None else type(error)


def answer(table: RequestTable, request: PendingRequest) -> None:
    taken = table.requests.take(request.request_id)
    assert taken is request
    request.future.set_result(b"")


# Deadlines.


def test_requests_expire_at_their_deadlines_in_any_order(table: RequestTable) -> None:
    late, early, middle = table.add(5.0), table.add(1.0), table.add(3.0)
    for at, ended in ((0.999, []), (1.0, [early]), (2.9, [early]), (3.0, [early, middle])):
        table.clock.until(1000.0 + at)
        assert [request for request in (early, middle, late) if outcome(request)] == ended
    table.clock.until(1005.0)
    assert {outcome(request) for request in (late, early, middle)} == {RequestTimeout}
    assert len(table.requests) == 0
    assert table.clock.set == 0


def test_passed_deadline_expires_at_the_next_timer(table: RequestTable) -> None:
    request = table.add(-1.0)
    assert outcome(request) is None, "not inside the request that adds it"
    table.clock.until(table.clock.now)
    assert outcome(request) is RequestTimeout


def test_timer_is_set_again_after_all_requests_expired(table: RequestTable) -> None:
    for _ in range(3):
        request = table.add(1.0)
        table.clock.until(table.clock.now + 2.0)
        assert outcome(request) is RequestTimeout


def test_cancelled_future_is_not_failed_at_the_deadline(table: RequestTable) -> None:
    cancelled, request = table.add(1.0), table.add(1.0)
    cancelled.future.cancel()
    table.clock.until(1002.0)
    assert outcome(request) is RequestTimeout
    assert cancelled.future.cancelled()


def test_replied_or_dropped_request_does_not_expire(table: RequestTable) -> None:
    answered, dropped = table.add(1.0), table.add(1.0)
    answer(table, answered)
    table.requests.drop(dropped)
    table.clock.until(1010.0)
    assert outcome(answered) == "answered"
    assert outcome(dropped) is None
    assert table.requests.late == 0


def test_late_reply_is_counted(table: RequestTable) -> None:
    request = table.add(1.0)
    table.clock.until(1001.0)
    assert table.requests.take(request.request_id) is None
    assert table.requests.take(99) is None
    assert table.requests.late == 2


def test_equal_timeouts_cost_one_scan_per_timeout(table: RequestTable) -> None:
    """Hot path: a request that is replied to does not change the timer."""
    for _ in range(10_000):
        table.clock.until(table.clock.now + 0.001)
        answer(table, table.add(5.0))
    assert table.clock.fired <= 3


def test_close_deadlines_share_scans(table: RequestTable) -> None:
    for number in range(2000):
        table.add(1.0 + number * 1e-5)
    table.clock.until(1002.0)
    assert len(table.requests) == 0
    assert table.clock.fired <= 25


STEPS = st.lists(
    st.tuples(st.just("add"), st.sampled_from([-1.0, 0.0, 0.5, 1.0, 1.001, 5.0]))
    | st.tuples(st.just("answer"), st.integers(0, 100))
    | st.tuples(st.just("drop"), st.integers(0, 100))
    | st.tuples(st.just("pass"), st.sampled_from([0.0, 0.1, 1.0, 2.0, 6.0]))
    | st.tuples(st.just("lose"), st.booleans()),
    min_size=10,
    max_size=50,
)


@given(steps=STEPS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_requests_never_expire_early_or_late(
    table: RequestTable, steps: list[tuple[str, Any]]
) -> None:
    table = RequestTable(table.clock)
    table.clock.timers.clear()
    open_requests: list[PendingRequest] = []
    for step, value in steps:
        if step == "add":
            open_requests.append(table.add(value, idempotent=True))
        elif step == "pass":
            table.clock.until(table.clock.now + value)
        elif step == "lose":
            requeue_or_fail(table.requests, "connection lost", 0 if value else None)
        elif open_requests:
            request = open_requests.pop(value % len(open_requests))
            if step == "drop":
                table.requests.drop(request)
            elif outcome(request) is None:
                answer(table, request)
        for request in open_requests:
            if outcome(request) is None:
                assert request.deadline >= table.clock.now - SLACK or step != "pass"
            else:
                assert outcome(request) is RequestTimeout
                assert request.deadline <= table.clock.now
        assert table.clock.set <= 1
        open_requests = [request for request in open_requests if outcome(request) is None]
        assert len(table.requests) == len(open_requests)


# The connection is lost.


def test_sent_requests_fail_and_the_others_are_resent(table: RequestTable) -> None:
    sent, unsent = table.add(5.0), table.add(5.0, sent=False)
    idempotent = table.add(5.0, idempotent=True)
    requeue_or_fail(table.requests, "the relay died", None)
    assert outcome(sent) is ConnectionLost
    assert str(sent.future.exception()) == "the relay died"
    assert table.requests.unsent() == [unsent, idempotent]
    assert len(table.requests) == 2


def test_requests_that_a_draining_relay_did_not_accept_are_resent(table: RequestTable) -> None:
    accepted, last, not_accepted = (table.add(5.0) for _ in range(3))
    requeue_or_fail(table.requests, "the relay is draining", last.request_id)
    assert [outcome(request) for request in (accepted, last)] == [ConnectionLost, ConnectionLost]
    assert table.requests.unsent() == [not_accepted]


def test_draining_relay_that_accepted_none_allows_resending_all(table: RequestTable) -> None:
    request = table.add(5.0)
    requeue_or_fail(table.requests, "the relay is draining", 0)
    assert table.requests.unsent() == [request]


def test_resent_request_gets_a_new_id_and_keeps_its_deadline(table: RequestTable) -> None:
    requests = [table.add(5.0, idempotent=True) for _ in range(3)]
    ids = [request.request_id for request in requests]
    table.clock.until(1004.0)
    requeue_or_fail(table.requests, "connection lost", None)
    assert table.requests.unsent() == requests, "in the order they were made"
    assert [request.request_id for request in requests] == sorted(
        request.request_id for request in requests
    )
    assert min(request.request_id for request in requests) > max(ids)
    assert table.requests.take(ids[0]) is None, "a late reply must not match"
    table.clock.until(1005.0)
    assert [outcome(request) for request in requests] == [RequestTimeout] * 3


def test_cancelled_request_is_not_resent(table: RequestTable) -> None:
    request = table.add(5.0)
    request.future.cancel()
    requeue_or_fail(table.requests, "connection lost", None)
    table.clock.until(1005.0)
    assert request.future.cancelled()
    assert len(table.requests) == 0


def test_close_fails_all_requests_and_stops_the_timer(table: RequestTable) -> None:
    requests = [table.add(5.0), table.add(1.0, sent=False)]
    cancelled = table.add(5.0)
    cancelled.future.cancel()
    table.requests.fail_all(MeshClosed("closed"))
    assert [outcome(request) for request in requests] == [MeshClosed] * 2
    assert len(table.requests) == 0
    assert table.clock.set == 0


def test_request_after_close_still_expires(table: RequestTable) -> None:
    table.add(1.0)
    table.requests.fail_all(MeshClosed("closed"))
    late = table.add(5.0)
    table.clock.until(1005.0)
    assert outcome(late) is RequestTimeout
