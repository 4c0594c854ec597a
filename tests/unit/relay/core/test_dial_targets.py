"""Dial targets: which addresses are dialled, and when."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arke_relay.core import dial_targets as module
from arke_relay.core.dial_targets import (
    FIRST_RETRY,
    FORGET_AFTER,
    LONGEST_RETRY,
    MAX_CONCURRENT,
    SELF_RETRY,
    DialTarget,
    DialTargets,
)


class Search:
    """DialTargets with a clock and a set of linked nodes."""

    def __init__(self) -> None:
        self.dial_targets = DialTargets(Random(3).random)
        self.now = 100.0
        self.linked: set[str] = set()

    def hint(
        self,
        *addresses: str,
        node: str | None = None,
        key: int | None = None,
    ) -> None:
        self.dial_targets.hint(addresses, 55556, node, key, self.now)

    def due(self) -> list[DialTarget]:
        return self.dial_targets.due(self.linked.__contains__, self.now)

    def fail(self, dial_target: DialTarget, *, myself: bool = False) -> float:
        """Let a dial fail, and return the seconds until the target is due again."""
        self.dial_targets.failed(dial_target, self.now, myself=myself)
        return dial_target.due - self.now


def addresses(dial_targets: list[DialTarget]) -> list[str]:
    return [dial_target.address for dial_target in dial_targets]


def test_new_hint_is_due_at_once_and_only_once() -> None:
    search = Search()
    search.hint("one", "other", node="n")
    assert addresses(search.due()) == ["one", "other"]
    search.now += 1000
    search.hint("one", "other", node="n")
    assert search.due() == [], "both are being dialled"


def test_ports_of_one_address_are_different_targets() -> None:
    search = Search()
    search.dial_targets.hint(["one"], 1, None, None, search.now)
    search.dial_targets.hint(["one"], 2, None, None, search.now)
    assert [dial_target.where for dial_target in search.due()] == ["one:1", "one:2"]


@pytest.mark.parametrize(
    ("address", "where"), [("10.9.8.7", "10.9.8.7:55556"), ("fd00::1", "[fd00::1]:55556")]
)
def test_target_is_formatted_as_host_and_port(address: str, where: str) -> None:
    search = Search()
    search.hint(address)
    (dial_target,) = search.due()
    assert dial_target.where == where


def test_linked_node_is_not_dialled_at_any_address() -> None:
    search = Search()
    search.hint("one", "other", node="n")
    search.linked = {"n"}
    assert search.due() == []
    search.linked = set()
    assert addresses(search.due()) == ["one", "other"]


def test_failed_target_is_retried_with_growing_pauses_without_end() -> None:
    search = Search()
    search.hint("one")
    expected = FIRST_RETRY
    for _ in range(20):
        (dial_target,) = search.due()
        pause = search.fail(dial_target)
        assert 0.75 * expected <= pause <= 1.25 * expected
        search.now = dial_target.due - 0.001
        assert search.due() == []
        search.now = dial_target.due
        expected = min(LONGEST_RETRY, 2 * expected)


def test_each_attempt_uses_the_next_key() -> None:
    search = Search()
    search.hint("one", key=1)
    keys = []
    for _ in range(4):
        (dial_target,) = search.due()
        keys.append(dial_target.key_index % 2)
        search.fail(dial_target)
        search.now = dial_target.due
    assert keys == [1, 0, 1, 0]
    search.hint("one", key=1)
    (dial_target,) = search.due()
    assert dial_target.key_index == 1


def test_own_address_is_retried_rarely() -> None:
    search = Search()
    search.hint("me")
    (dial_target,) = search.due()
    assert search.fail(dial_target, myself=True) >= 0.75 * SELF_RETRY


def test_new_node_at_a_known_address_is_dialled_at_once() -> None:
    search = Search()
    search.hint("one", node="old")
    (dial_target,) = search.due()
    for _ in range(8):
        search.fail(dial_target)
    search.hint("one", node="old")
    assert search.due() == []
    search.hint("one")
    assert search.due() == []
    search.hint("one", node="new")
    assert search.due() == [dial_target]
    assert search.fail(dial_target) <= 1.25 * FIRST_RETRY


def test_successful_join_sets_the_node_of_its_target() -> None:
    search = Search()
    search.hint("one", node="claimed")
    (dial_target,) = search.due()
    search.dial_targets.succeeded(dial_target, "true", search.now)
    search.linked = {"true"}
    search.now += 100
    assert search.due() == []


def test_lost_node_is_dialled_soon() -> None:
    search = Search()
    search.hint("one", "other", node="n")
    first, second = search.due()
    search.dial_targets.succeeded(first, "n", search.now)
    for _ in range(8):
        search.fail(second)
    search.linked = {"n"}
    search.now += 1000
    search.linked = set()
    search.dial_targets.lost("n", search.now)
    assert search.due() == []
    search.now += FIRST_RETRY
    assert search.due() == [first, second]
    assert search.fail(second) <= 1.25 * FIRST_RETRY


def test_target_without_new_hints_is_removed() -> None:
    search = Search()
    search.hint("lost", "configured")
    for dial_target in search.due():
        search.fail(dial_target)
    search.now += FORGET_AFTER
    search.hint("configured")  # as every round of the seeds does
    search.now += 1
    assert addresses(search.due()) == ["configured"]
    assert len(search.dial_targets) == 1


def test_target_of_a_linked_node_is_kept() -> None:
    search = Search()
    search.hint("one", node="n")
    (dial_target,) = search.due()
    search.dial_targets.succeeded(dial_target, "n", search.now)
    search.linked = {"n"}
    search.now += 10 * FORGET_AFTER
    assert search.due() == []
    search.linked = set()
    search.dial_targets.lost("n", search.now)
    search.now += FIRST_RETRY
    assert search.due() == [dial_target]


def test_simultaneous_dials_are_bounded() -> None:
    search = Search()
    search.hint(*map(str, range(2 * MAX_CONCURRENT)))
    first = search.due()
    assert len(first) == MAX_CONCURRENT
    assert search.due() == []
    for dial_target in first[:3]:
        search.fail(dial_target)
    assert len(search.due()) == 3


def test_unreachable_targets_do_not_delay_a_new_one() -> None:
    """Hundreds of targets time out later than their retry pause, and a new target is added."""
    search = Search()
    search.hint(*map(str, range(10 * MAX_CONCURRENT)))
    dialled: set[str] = set()
    dialling: list[DialTarget] = []
    rounds = 0
    while "new" not in dialled:
        rounds += 1
        assert rounds < 30
        if rounds == 5:
            search.hint("new")
        for dial_target in dialling:
            search.fail(dial_target)
        search.now += LONGEST_RETRY
        dialling = search.due()
        assert len(dialling) == MAX_CONCURRENT
        dialled.update(addresses(dialling))
    assert rounds <= 5 + 11


def test_table_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TARGETS", 3)
    search = Search()
    search.hint("1", "2", "3", "4", "5")
    assert len(search.dial_targets) == 3
    assert search.dial_targets.refused == 2
    for dial_target in search.due():
        search.fail(dial_target)
    search.hint("6", "1", node="n")
    assert addresses(search.due()) == ["1"], "a known target is updated although the table is full"


# Whether the relay may still find peers.


def test_exploring_until_every_address_was_tried() -> None:
    search = Search()
    assert search.due() == []
    assert not search.dial_targets.exploring
    search.hint("seed")
    search.hint("found", node="n")
    seed, found = search.due()
    assert search.dial_targets.exploring
    search.fail(seed)
    search.due()
    assert search.dial_targets.exploring, "`found` is still being dialled"
    search.dial_targets.succeeded(found, "n", search.now)
    search.linked = {"n"}
    search.due()
    assert not search.dial_targets.exploring


def test_other_addresses_of_a_linked_node_are_not_explored() -> None:
    search = Search()
    search.linked = {"n"}
    search.hint("one", "other", node="n")
    search.due()
    assert not search.dial_targets.exploring
    search.hint("third", node="m")
    search.due()
    assert search.dial_targets.exploring, "that node may know other peers"


def test_new_node_at_an_address_is_explored() -> None:
    search = Search()
    search.hint("one", node="old")
    (dial_target,) = search.due()
    search.fail(dial_target)
    search.due()
    assert not search.dial_targets.exploring
    search.hint("one", node="new")
    search.due()
    assert search.dial_targets.exploring


@given(st.data())
def test_dials_stay_within_their_limit_and_end(data: st.DataObject) -> None:
    search = Search()
    dialling: list[DialTarget] = []
    for _ in range(data.draw(st.integers(0, 30))):
        search.now += data.draw(st.sampled_from([0.0, 0.1, 5.0, 700.0]))
        what = data.draw(st.sampled_from(["hint", "fail", "succeed", "lost", "due"]))
        node = data.draw(st.sampled_from(["n", "m", None]))
        if what == "hint":
            search.hint(*data.draw(st.lists(st.sampled_from("abcdef"), max_size=3)), node=node)
        elif what == "lost" and node:
            search.linked.discard(node)
            search.dial_targets.lost(node, search.now)
        elif what in {"fail", "succeed"} and dialling:
            dial_target = dialling.pop()
            if what == "fail":
                search.fail(dial_target)
            else:
                search.dial_targets.succeeded(dial_target, node or "n", search.now)
                search.linked.add(node or "n")
        for dial_target in search.due():
            assert dial_target not in dialling
            assert dial_target.node not in search.linked
            assert dial_target.due <= search.now
            dialling.append(dial_target)
        assert len(dialling) <= MAX_CONCURRENT
