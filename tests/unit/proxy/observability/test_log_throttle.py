from __future__ import annotations

import logging

import pytest

from arke_proxy.observability.log_throttle import WarningThrottle


def test_one_warning_in_five_seconds_and_the_rest_is_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = [100.0]
    complaints = WarningThrottle(logging.getLogger("test"), lambda: now[0])
    for _ in range(3):
        complaints.warn("a", "a is broken")
    complaints.warn("b", "b is broken")
    now[0] += 5.0
    complaints.warn("a", "a is broken")
    complaints.warn("a", "a is broken")
    now[0] += 5.0
    complaints.warn("a", "a is broken")
    assert caplog.messages == [
        "a is broken",
        "b is broken",
        "a is broken (and 2 more like it)",
        "a is broken (and 1 more like it)",
    ]


def test_what_is_remembered_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    complaints = WarningThrottle(logging.getLogger("test"), lambda: 0.0)
    for number in range(3000):
        complaints.warn(number, "broken")
    assert len(caplog.messages) == 3000
    assert len(complaints._last) <= 1000
