from __future__ import annotations

import pytest

from arke_proxy.choosing.address import Address
from arke_proxy.choosing.suspects import Suspects

ONE = Address("127.0.0.1", 1)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_failure_counts_for_a_while(clock: Clock) -> None:
    suspects = Suspects(clock)
    assert not suspects.avoid(ONE)
    suspects.add(ONE)
    assert suspects.avoid(ONE)
    clock.now += 5
    assert not suspects.avoid(ONE)


def test_one_request_finds_out_and_the_others_wait(clock: Clock) -> None:
    suspects = Suspects(clock)
    suspects.add(ONE)
    clock.now += 5
    assert [suspects.avoid(ONE) for _ in range(3)] == [False, True, True]
    clock.now += 2
    assert [suspects.avoid(ONE) for _ in range(3)] == [False, False, False]


def test_a_trial_that_fails_starts_the_time_again(clock: Clock) -> None:
    suspects = Suspects(clock)
    suspects.add(ONE)
    clock.now += 5
    assert not suspects.avoid(ONE)
    suspects.add(ONE)
    clock.now += 4
    assert suspects.avoid(ONE)


def test_the_oldest_is_forgotten_when_there_are_too_many(clock: Clock) -> None:
    suspects = Suspects(clock)
    for port in range(1, 1002):
        suspects.add(Address("127.0.0.1", port))
    assert not suspects.avoid(ONE)
    assert suspects.avoid(Address("127.0.0.1", 2))
