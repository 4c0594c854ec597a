"""Liveness: a silent remote end times out; pauses of the own process do not count."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arke.wire.liveness import Liveness

TIMEOUT, INTERVAL = 2.0, 0.25


def live(now: float = 0.0) -> Liveness:
    return Liveness(TIMEOUT, INTERVAL, now)


def ticks_until_timed_out(liveness: Liveness, start: float, beat: float = INTERVAL) -> int:
    for count in range(1, 1000):
        if liveness.timed_out(start + count * beat):
            return count
    raise AssertionError("never timed out")


def test_silent_remote_end_times_out() -> None:
    liveness = live()
    assert ticks_until_timed_out(liveness, 0.0) == TIMEOUT / INTERVAL + 1


def test_traffic_restarts_the_timeout() -> None:
    liveness = live()
    for beat in range(1, 100):
        liveness.on_traffic(beat * INTERVAL)
        assert not liveness.timed_out(beat * INTERVAL)
    assert ticks_until_timed_out(liveness, 99 * INTERVAL) == TIMEOUT / INTERVAL + 1


@pytest.mark.parametrize("paused", [0.6, 2.0, 5.0, 3600.0])
def test_own_pause_counts_as_one_interval(paused: float) -> None:
    liveness = live()
    for beat in (1, 2, 3):
        assert not liveness.timed_out(beat * INTERVAL)
    now = 3 * INTERVAL + paused
    assert not liveness.timed_out(now)
    assert liveness.silence(now) == pytest.approx(4 * INTERVAL)
    # Four of the eight intervals of the timeout have passed.
    assert ticks_until_timed_out(liveness, now) in {4, 5}


def test_own_pause_extends_the_timeout_only_by_itself() -> None:
    """Traffic during a pause is not moved into the future."""
    liveness = live()
    liveness.timed_out(INTERVAL)
    liveness.on_traffic(9.9)
    assert not liveness.timed_out(10.0)
    assert liveness.silence(10.0) == 0
    assert liveness.silence(11.0) == 1.0


@given(
    gaps=st.lists(st.floats(0.01, 100), max_size=60),
    traffic=st.lists(st.booleans(), min_size=60, max_size=60),
)
def test_timeout_is_never_early(gaps: list[float], traffic: list[bool]) -> None:
    liveness = live()
    last = 0.0
    for now, received in zip(accumulate(gaps), traffic, strict=False):
        if received:
            liveness.on_traffic(now)
            last = now
        timed_out = liveness.timed_out(now)
        assert liveness.silence(now) >= 0
        assert not timed_out or now - last > TIMEOUT


@given(gaps=st.lists(st.floats(INTERVAL, 100), min_size=20, max_size=20))
def test_slow_checks_still_time_out(gaps: list[float]) -> None:
    """Every check counts at least one interval, so that a slow loop still times out."""
    liveness = live()
    assert any(liveness.timed_out(now) for now in accumulate(gaps[: int(TIMEOUT / INTERVAL) + 2]))
