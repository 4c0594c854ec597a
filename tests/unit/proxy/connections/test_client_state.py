from __future__ import annotations

import itertools
import math

import pytest

from arke_proxy.connections.client_state import TRANSITIONS, ClientState, ClientTimer
from arke_proxy.connections.timeouts import TimeLimits, Timeouts
from support.manual_clock import ManualClock


class Connection:
    """A client connection that records its time-outs."""

    peer = "127.0.0.1"

    def __init__(self, timer: ClientTimer) -> None:
        self.timer = timer
        self.timeouts = 0

    def timed_out(self) -> None:
        self.timeouts += 1

    def shut_down(self) -> None: ...

    def abort(self) -> None: ...


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(100.0)


@pytest.fixture
def timeouts(clock: ManualClock) -> Timeouts:
    return Timeouts(TimeLimits(), clock)


PAIRS = list(itertools.product(ClientState, ClientState))


@pytest.mark.parametrize(("old", "new"), PAIRS, ids=[f"{a.name}-{b.name}" for a, b in PAIRS])
def test_only_transitions_of_the_table_are_possible(
    timeouts: Timeouts, old: ClientState, new: ClientState
) -> None:
    timer = timeouts.timer(old)
    if new in TRANSITIONS[old]:
        timer.enter(new)
        assert timer.state is new
    else:
        with pytest.raises(AssertionError, match=f"{old.name} to {new.name}"):
            timer.enter(new)


def test_each_state_can_be_closed() -> None:
    assert all(ClientState.CLOSED in successors for successors in TRANSITIONS.values())


@pytest.mark.parametrize(
    ("state", "seconds"),
    [
        (ClientState.HANDSHAKE, 10.0),
        (ClientState.IDLE, 75.0),
        (ClientState.REQUEST_HEAD, 10.0),
        (ClientState.EXCHANGE, 60.0),
        (ClientState.STREAMS, math.inf),
        (ClientState.FLUSHING, 60.0),
        (ClientState.UPGRADED, 3600.0),
        (ClientState.LINGERING, 2.0),
        (ClientState.LINGERING_SLOW, 60.0),
        (ClientState.CLOSED, math.inf),
    ],
)
def test_time_limit_of_each_state(timeouts: Timeouts, state: ClientState, seconds: float) -> None:
    assert timeouts.timer(state).due == 100.0 + seconds


def test_sweep_reports_a_time_out_once(timeouts: Timeouts, clock: ManualClock) -> None:
    connection = Connection(timeouts.timer(ClientState.LINGERING))
    timeouts.sweep([connection], 101.9)
    assert connection.timeouts == 0
    clock.now = 102.0
    timeouts.sweep([connection], clock.now)
    timeouts.sweep([connection], clock.now + 1000.0)
    assert connection.timeouts == 1
    connection.timer.enter(ClientState.LINGERING_SLOW)
    timeouts.sweep([connection], clock.now + 60.0)
    assert connection.timeouts == 2


def test_progress_restarts_the_time_limit(timeouts: Timeouts, clock: ManualClock) -> None:
    timer = timeouts.timer(ClientState.EXCHANGE)
    clock.now = 130.0
    timer.restart()
    assert timer.due == 190.0
