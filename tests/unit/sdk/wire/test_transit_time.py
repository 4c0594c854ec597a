"""Transit time: delay is measured without synchronised clocks."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arke.wire.transit_time import TransitTime

WINDOW = 60_000

CLOCKS = st.floats(-1e9, 1e9)


def test_first_message_has_no_delay() -> None:
    assert TransitTime().delay(stamp=7.0, now=123_456.0) == 0


@given(
    apart=CLOCKS,
    distance=st.floats(0, 1000),
    waits=st.lists(st.floats(0, 10_000), max_size=50),
)
def test_delay_is_relative_to_the_fastest_message(
    apart: float, distance: float, waits: list[float]
) -> None:
    transit_time = TransitTime()
    transit_time.delay(apart, distance)
    for wait in waits:
        sent = 10.0
        delays = transit_time.delay(sent + apart, sent + distance + wait)
        assert delays == pytest.approx(wait, abs=1e-5)


@given(arrivals=st.lists(st.tuples(CLOCKS, st.floats(0, 1e6)), min_size=1))
def test_delay_is_never_negative(arrivals: list[tuple[float, float]]) -> None:
    transit_time = TransitTime()
    now = 0.0
    for stamp, passed in arrivals:
        now += passed
        assert transit_time.delay(stamp, now) >= 0


def test_faster_message_lowers_the_minimum() -> None:
    transit_time = TransitTime()
    assert transit_time.delay(stamp=0, now=500) == 0
    assert transit_time.delay(stamp=1000, now=1100) == 0
    assert transit_time.delay(stamp=2000, now=2500) == 400


@pytest.mark.parametrize("drift", [100e-6, -100e-6])
def test_clock_drift_does_not_accumulate(drift: float) -> None:
    """Clocks that drift by 0.01 % differ by 360 ms after an hour."""
    transit_time = TransitTime()
    delays = [
        transit_time.delay(second * 1000 * (1 - drift), second * 1000) for second in range(3600)
    ]
    assert max(delays) <= 2 * WINDOW * abs(drift) + 1e-6


def test_longer_transit_is_accepted_after_two_windows() -> None:
    transit_time = TransitTime()
    transit_time.delay(stamp=0, now=10)
    delays = [transit_time.delay(stamp=now - 60, now=now) for now in range(1000, 4 * WINDOW, 1000)]
    assert delays[0] == 50
    assert delays[-1] == 0
    assert all(after <= before for before, after in pairwise(delays))
    assert delays.index(0) <= 2 * WINDOW // 1000


def test_late_message_at_a_window_change_is_still_late() -> None:
    transit_time = TransitTime()
    for now in range(0, WINDOW, 1000):
        transit_time.delay(stamp=now - 10, now=now)
    assert transit_time.delay(stamp=WINDOW - 510, now=WINDOW) == 500
