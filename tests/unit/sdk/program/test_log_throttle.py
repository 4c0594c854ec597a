from __future__ import annotations

from arke.program.log_throttle import LogThrottle
from support.manual_clock import ManualClock

KEYS = 1024


def test_one_line_per_period_and_the_next_one_reports_how_many_were_suppressed() -> None:
    clock = ManualClock()
    throttle = LogThrottle(clock)
    assert throttle.admit("key", 60) == 0
    assert [throttle.admit("key", 60) for _ in range(4)] == [None] * 4
    assert throttle.admit("other key", 60) == 0
    clock.now += 59.9
    assert throttle.admit("key", 60) is None
    clock.now += 0.1
    assert throttle.admit("key", 60) == 5
    assert throttle.admit("key", 60) is None
    clock.now += 60
    assert throttle.admit("key", 60) == 1


def test_several_lines_per_period() -> None:
    clock = ManualClock()
    throttle = LogThrottle(clock)
    assert [throttle.admit("key", 1, 3) for _ in range(5)] == [0, 0, 0, None, None]
    clock.now += 1
    assert throttle.admit("key", 1, 3) == 2


def test_rotating_keys_share_one_line_and_every_line_is_counted() -> None:
    clock = ManualClock()
    throttle = LogThrottle(clock)
    admitted = [throttle.admit(number, 60) for number in range(5000)]
    assert sum(count is not None for count in admitted) == KEYS + 1
    clock.now += 60
    admitted += [throttle.admit(number, 60) for number in range(5000, 10000)]
    clock.now += 60
    admitted += [throttle.admit(number, 60) for number in range(10000, 10000 + KEYS + 1)]
    written = [count for count in admitted if count is not None]
    assert len(written) + sum(written) == 10000 + KEYS + 1


def test_suppressed_count_of_an_expired_key_is_reported_by_the_shared_key() -> None:
    clock = ManualClock()
    throttle = LogThrottle(clock)
    for number in range(KEYS):
        assert [throttle.admit(number, 60) for _ in range(3)] == [0, None, None]
    clock.now += 60
    admitted = [throttle.admit(number, 60) for number in range(KEYS, KEYS + KEYS + 1)]
    assert admitted == [0] * KEYS + [2 * KEYS]
