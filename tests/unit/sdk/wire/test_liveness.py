"""A silent partner is given up in time, and our own pauses are not its silence."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arke.wire.liveness import Liveness

PATIENCE, BEAT = 2.0, 0.25


def live(now: float = 0.0) -> Liveness:
    return Liveness(PATIENCE, BEAT, now)


def ticks_until_given_up(liveness: Liveness, start: float, beat: float = BEAT) -> int:
    for count in range(1, 1000):
        if liveness.timed_out(start + count * beat):
            return count
    raise AssertionError("never given up")


def test_silent_remote_end_times_out() -> None:
    liveness = live()
    assert ticks_until_given_up(liveness, 0.0) == PATIENCE / BEAT + 1


def test_traffic_restarts_the_timeout() -> None:
    liveness = live()
    for beat in range(1, 100):
        liveness.on_traffic(beat * BEAT)
        assert not liveness.timed_out(beat * BEAT)
    assert ticks_until_given_up(liveness, 99 * BEAT) == PATIENCE / BEAT + 1


@pytest.mark.parametrize("paused", [0.6, 2.0, 5.0, 3600.0])
def test_own_pause_counts_as_one_interval(paused: float) -> None:
    liveness = live()
    for beat in (1, 2, 3):
        assert not liveness.timed_out(beat * BEAT)
    now = 3 * BEAT + paused
    assert not liveness.timed_out(now)
    assert liveness.silence(now) == pytest.approx(4 * BEAT)
    # Of the eight beats of patience four are gone.
    assert ticks_until_given_up(liveness, now) in {4, 5}


def test_own_pause_extends_the_timeout_only_by_itself() -> None:
    """What was heard while we slept is not in the future afterwards."""
    liveness = live()
    liveness.timed_out(BEAT)
    liveness.on_traffic(9.9)
    assert not liveness.timed_out(10.0)
    assert liveness.silence(10.0) == 0
    assert liveness.silence(11.0) == 1.0


@given(
    gaps=st.lists(st.floats(0.01, 100), max_size=60),
    heard=st.lists(st.booleans(), min_size=60, max_size=60),
)
def test_no_timeout_before_its_time(gaps: list[float], heard: list[bool]) -> None:
    liveness = live()
    last = 0.0
    for now, life in zip(accumulate(gaps), heard, strict=False):
        if life:
            liveness.on_traffic(now)
            last = now
        given_up = liveness.timed_out(now)
        assert liveness.silence(now) >= 0
        assert not given_up or now - last > PATIENCE


@given(gaps=st.lists(st.floats(BEAT, 100), min_size=20, max_size=20))
def test_slow_checks_still_time_out(gaps: list[float]) -> None:
    """Each look, however late, counts for a beat at least: a slow loop keeps nobody for ever."""
    liveness = live()
    assert any(liveness.timed_out(now) for now in accumulate(gaps[: int(PATIENCE / BEAT) + 2]))
