from __future__ import annotations

from arke_proxy.connections.deadlines import Deadlines


def test_deadlines_pass_in_the_order_of_their_start() -> None:
    deadlines: Deadlines[str] = Deadlines(2.0)
    deadlines.start("a", 10.0)
    deadlines.start("b", 11.0)
    deadlines.start("c", 12.0)
    assert list(deadlines.expired(11.9)) == []
    assert list(deadlines.expired(13.0)) == ["a", "b"]
    assert list(deadlines.expired(13.0)) == []
    assert len(deadlines) == 1


def test_who_starts_again_has_the_full_time_again() -> None:
    deadlines: Deadlines[str] = Deadlines(2.0)
    deadlines.start("a", 10.0)
    deadlines.start("b", 10.5)
    deadlines.start("a", 11.0)
    assert list(deadlines.expired(12.5)) == ["b"]
    assert list(deadlines.expired(13.0)) == ["a"]


def test_who_stops_is_forgotten() -> None:
    deadlines: Deadlines[str] = Deadlines(2.0)
    deadlines.start("a", 10.0)
    deadlines.stop("a")
    deadlines.stop("a")
    assert list(deadlines.expired(99.0)) == []


def test_what_becomes_of_one_may_concern_others() -> None:
    deadlines: Deadlines[str] = Deadlines(2.0)
    for item in "abcd":
        deadlines.start(item, 10.0)
    seen = []
    for item in deadlines.expired(12.0):
        seen.append(item)
        deadlines.start("b", 12.0)
        deadlines.stop("c")
    assert seen == ["a", "d"]
    assert list(deadlines.expired(14.0)) == ["b"]
