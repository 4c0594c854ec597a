from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arke.cli.bench.result import Result, percentile
from arke.cli.bench.throughput import Window
from arke.wire.limits import MAX_MESSAGE


def test_percentiles_are_nearest_ranks_in_microseconds() -> None:
    samples = array("q", (number * 1000 for number in range(100, 0, -1)))
    assert percentile(samples, 50) == 50
    assert percentile(samples, 99) == 99
    assert percentile(array("q", [7000]), 99) == 7
    assert percentile(array("q"), 50) == 0


@given(st.integers(1, MAX_MESSAGE))
def test_send_window_is_bounded_and_reports_align_with_bursts(size: int) -> None:
    window = Window.for_bodies(size)
    assert 1 <= window.burst <= window.every <= window.size <= 4096
    assert window.every % window.burst == 0
    assert window.size % window.every == 0
    assert window.size == 1 or window.size * size <= 4 * 1024 * 1024


@pytest.mark.parametrize(("errors", "drops"), [(1, 0), (0, 1)])
def test_result_with_errors_or_drops_is_not_clean(errors: int, drops: int) -> None:
    assert Result("publish", 1, 1.0, 1, 1, 1).clean
    assert not Result("publish", 1, 1.0, 1, 1, 1, errors=errors, drops=drops).clean
