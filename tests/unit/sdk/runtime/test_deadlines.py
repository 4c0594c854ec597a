"""What a program waits for: ends once, at its deadline at the latest, and is sent again if safe."""

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
"""Seconds that an end may be late by: scans pause for a while, the more calls the longer."""


@dataclass(eq=False)
class Timer:
    at: float
    run: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class Clock:
    """A loop's timers and the time, both moved by hand; futures are those of a real loop."""

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
class Desk:
    """Calls under such a clock."""

    clock: Clock

    def __post_init__(self) -> None:
        self.calls = PendingRequests(self.clock, self.clock.monotonic)  # type: ignore[arg-type]

    def add(self, timeout: float, *, idempotent: bool = False, sent: bool = True) -> PendingRequest:
        deadline = self.clock.now + timeout
        call = PendingRequest(self.clock.loop.create_future(), deadline, idempotent)
        self.calls.add(call)
        call.sent = sent
        return call


@pytest.fixture
def desk() -> Iterator[Desk]:
    loop = asyncio.new_event_loop()
    yield Desk(Clock(loop))
    loop.close()


def outcome(call: PendingRequest) -> object:
    """The kind of its end; None while it is open."""
    if not call.future.done():
        return None
    error = call.future.exception()
    return "answered" if error is None else type(error)


def answer(desk: Desk, call: PendingRequest) -> None:
    taken = desk.calls.take(call.request_id)
    assert taken is call
    call.future.set_result(b"")


# Deadlines.


def test_requests_expire_at_their_deadlines_in_any_order(desk: Desk) -> None:
    late, early, middle = desk.add(5.0), desk.add(1.0), desk.add(3.0)
    for at, ended in ((0.999, []), (1.0, [early]), (2.9, [early]), (3.0, [early, middle])):
        desk.clock.until(1000.0 + at)
        assert [call for call in (early, middle, late) if outcome(call)] == ended
    desk.clock.until(1005.0)
    assert {outcome(call) for call in (late, early, middle)} == {RequestTimeout}
    assert len(desk.calls) == 0
    assert desk.clock.set == 0


def test_passed_deadline_expires_at_the_next_timer(desk: Desk) -> None:
    call = desk.add(-1.0)
    assert outcome(call) is None, "not inside the call that adds it"
    desk.clock.until(desk.clock.now)
    assert outcome(call) is RequestTimeout


def test_timer_is_set_again_after_all_requests_expired(desk: Desk) -> None:
    for _ in range(3):
        call = desk.add(1.0)
        desk.clock.until(desk.clock.now + 2.0)
        assert outcome(call) is RequestTimeout


def test_cancelled_future_is_not_failed_at_the_deadline(desk: Desk) -> None:
    gone, call = desk.add(1.0), desk.add(1.0)
    gone.future.cancel()
    desk.clock.until(1002.0)
    assert outcome(call) is RequestTimeout
    assert gone.future.cancelled()


def test_replied_or_dropped_request_does_not_expire(desk: Desk) -> None:
    answered, dropped = desk.add(1.0), desk.add(1.0)
    answer(desk, answered)
    desk.calls.drop(dropped)
    desk.clock.until(1010.0)
    assert outcome(answered) == "answered"
    assert outcome(dropped) is None
    assert desk.calls.late == 0


def test_late_reply_is_counted(desk: Desk) -> None:
    call = desk.add(1.0)
    desk.clock.until(1001.0)
    assert desk.calls.take(call.request_id) is None
    assert desk.calls.take(99) is None
    assert desk.calls.late == 2


def test_equal_timeouts_cost_one_scan_per_timeout(desk: Desk) -> None:
    """The hot path: calls come and are answered, and the timer is not touched by each."""
    for _ in range(10_000):
        desk.clock.until(desk.clock.now + 0.001)
        answer(desk, desk.add(5.0))
    assert desk.clock.fired <= 3


def test_close_deadlines_share_scans(desk: Desk) -> None:
    for number in range(2000):
        desk.add(1.0 + number * 1e-5)
    desk.clock.until(1002.0)
    assert len(desk.calls) == 0
    assert desk.clock.fired <= 25


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
def test_requests_never_expire_early_or_late(desk: Desk, steps: list[tuple[str, Any]]) -> None:
    desk = Desk(desk.clock)
    desk.clock.timers.clear()
    open_calls: list[PendingRequest] = []
    for what, value in steps:
        if what == "add":
            open_calls.append(desk.add(value, idempotent=True))
        elif what == "pass":
            desk.clock.until(desk.clock.now + value)
        elif what == "lose":
            requeue_or_fail(desk.calls, "gone", 0 if value else None)
        elif open_calls:
            call = open_calls.pop(value % len(open_calls))
            if what == "drop":
                desk.calls.drop(call)
            elif outcome(call) is None:
                answer(desk, call)
        for call in open_calls:
            if outcome(call) is None:
                assert call.deadline >= desk.clock.now - SLACK or what != "pass"
            else:
                assert outcome(call) is RequestTimeout
                assert call.deadline <= desk.clock.now
        assert desk.clock.set <= 1
        open_calls = [call for call in open_calls if outcome(call) is None]
        assert len(desk.calls) == len(open_calls)


# The link is lost.


def test_sent_requests_fail_and_the_others_are_resent(desk: Desk) -> None:
    under_way, unsent = desk.add(5.0), desk.add(5.0, sent=False)
    idempotent = desk.add(5.0, idempotent=True)
    requeue_or_fail(desk.calls, "the relay died", None)
    assert outcome(under_way) is ConnectionLost
    assert str(under_way.future.exception()) == "the relay died"
    assert desk.calls.unsent() == [unsent, idempotent]
    assert len(desk.calls) == 2


def test_requests_that_a_draining_relay_did_not_accept_are_resent(desk: Desk) -> None:
    accepted, last, not_accepted = (desk.add(5.0) for _ in range(3))
    requeue_or_fail(desk.calls, "the relay is leaving", last.request_id)
    assert [outcome(call) for call in (accepted, last)] == [ConnectionLost, ConnectionLost]
    assert desk.calls.unsent() == [not_accepted]


def test_draining_relay_that_accepted_none_allows_resending_all(desk: Desk) -> None:
    call = desk.add(5.0)
    requeue_or_fail(desk.calls, "the relay is leaving", 0)
    assert desk.calls.unsent() == [call]


def test_resent_request_gets_a_new_id_and_keeps_its_deadline(desk: Desk) -> None:
    calls = [desk.add(5.0, idempotent=True) for _ in range(3)]
    ids = [call.request_id for call in calls]
    desk.clock.until(1004.0)
    requeue_or_fail(desk.calls, "gone", None)
    assert desk.calls.unsent() == calls, "in the order they were made"
    assert [call.request_id for call in calls] == sorted(call.request_id for call in calls)
    assert min(call.request_id for call in calls) > max(ids)
    assert desk.calls.take(ids[0]) is None, "an answer to the first sending is none to the second"
    desk.clock.until(1005.0)
    assert [outcome(call) for call in calls] == [RequestTimeout] * 3


def test_cancelled_request_is_not_resent(desk: Desk) -> None:
    call = desk.add(5.0)
    call.future.cancel()
    requeue_or_fail(desk.calls, "gone", None)
    desk.clock.until(1005.0)
    assert call.future.cancelled()
    assert len(desk.calls) == 0


def test_close_fails_all_requests_and_stops_the_timer(desk: Desk) -> None:
    calls = [desk.add(5.0), desk.add(1.0, sent=False)]
    gone = desk.add(5.0)
    gone.future.cancel()
    desk.calls.fail_all(MeshClosed("closed"))
    assert [outcome(call) for call in calls] == [MeshClosed] * 2
    assert len(desk.calls) == 0
    assert desk.clock.set == 0


def test_request_after_close_still_expires(desk: Desk) -> None:
    desk.add(1.0)
    desk.calls.fail_all(MeshClosed("closed"))
    late = desk.add(5.0)
    desk.clock.until(1005.0)
    assert outcome(late) is RequestTimeout
