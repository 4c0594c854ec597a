from __future__ import annotations

from arke_proxy.connections.deadlines import Deadlines


def test_deadlines_expire_in_order_of_start() -> None:
    deadlines: Deadlines[str] = Deadlines(2.0)
    deadlines.start("a", 10.0)
    deadlines.start("b", 11.0)
    deadlines.start("c", 12.0)
    assert list(deadlines.expired(11.9)) == []
    assert list(deadlines.expired(13.0)) == ["a", "b"]
    assert list(deadlines.expired(13.0)) == []
    assert len(deadlines) == 1


def test_restarted_item_has_full_time() -> None:
    deadlines: Deadlines[str] = Deadlines(2.0)
    deadlines.start("a", 10.0)
    deadlines.start("b", 10.5)
    deadlines.start("a", 11.0)
    assert list(deadlines.expired(12.5)) == ["b"]
    assert list(deadlines.expired(13.0)) == ["a"]


def test_stopped_item_does_not_expire() -> None:
    deadlines: Deadlines[str] = Deadlines(2.0)
    deadlines.start("a", 10.0)
    deadlines.stop("a")
    deadlines.stop("a")
    assert list(deadlines.expired(99.0)) == []


def test_items_may_be_started_and_stopped_during_iteration() -> None:
    deadlines: Deadlines[str] = Deadlines(2.0)
    for item in "abcd":
        deadlines.start(item, 10.0)
    expired = []
    for item in deadlines.expired(12.0):
        expired.append(item)
        deadlines.start("b", 12.0)
        deadlines.stop("c")
    assert expired == ["a", "d"]
    assert list(deadlines.expired(14.0)) == ["b"]
