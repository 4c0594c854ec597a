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
    LONGEST_UNTRUSTED_RETRY,
    MAX_CONCURRENT,
    MAX_CONCURRENT_UNTRUSTED,
    MAX_UNTRUSTED,
    MAX_UNTRUSTED_OF_NODE,
    SELF_RETRY,
    DialTarget,
    DialTargets,
)


class DialHarness:
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
        trusted: bool = True,
    ) -> None:
        self.dial_targets.hint(addresses, 55556, node, key, self.now, trusted=trusted)

    def due(self) -> list[DialTarget]:
        return self.dial_targets.due(self.linked.__contains__, self.now)

    def fail(self, dial_target: DialTarget, *, myself: bool = False) -> float:
        """Let a dial fail, and return the seconds until the target is due again."""
        self.dial_targets.failed(dial_target, self.now, myself=myself)
        return dial_target.due - self.now


def addresses(dial_targets: list[DialTarget]) -> list[str]:
    return [dial_target.address for dial_target in dial_targets]


def test_new_hint_is_due_at_once_and_only_once() -> None:
    harness = DialHarness()
    harness.hint("one", "other", node="n")
    assert addresses(harness.due()) == ["one", "other"]
    harness.now += 1000
    harness.hint("one", "other", node="n")
    assert harness.due() == [], "both are being dialled"


def test_ports_of_one_address_are_different_targets() -> None:
    harness = DialHarness()
    harness.dial_targets.hint(["one"], 1, None, None, harness.now)
    harness.dial_targets.hint(["one"], 2, None, None, harness.now)
    assert [dial_target.where for dial_target in harness.due()] == ["one:1", "one:2"]


@pytest.mark.parametrize(
    ("address", "where"), [("10.9.8.7", "10.9.8.7:55556"), ("fd00::1", "[fd00::1]:55556")]
)
def test_target_is_formatted_as_host_and_port(address: str, where: str) -> None:
    harness = DialHarness()
    harness.hint(address)
    (dial_target,) = harness.due()
    assert dial_target.where == where


def test_linked_node_is_not_dialled_at_any_address() -> None:
    harness = DialHarness()
    harness.hint("one", "other", node="n")
    harness.linked = {"n"}
    assert harness.due() == []
    harness.linked = set()
    assert addresses(harness.due()) == ["one", "other"]


def test_failed_target_is_retried_with_growing_pauses_without_end() -> None:
    harness = DialHarness()
    harness.hint("one")
    expected = FIRST_RETRY
    for _ in range(20):
        (dial_target,) = harness.due()
        pause = harness.fail(dial_target)
        assert 0.75 * expected <= pause <= 1.25 * expected
        harness.now = dial_target.due - 0.001
        assert harness.due() == []
        harness.now = dial_target.due
        expected = min(LONGEST_RETRY, 2 * expected)


def test_each_attempt_uses_the_next_key() -> None:
    harness = DialHarness()
    harness.hint("one", key=1)
    keys = []
    for _ in range(4):
        (dial_target,) = harness.due()
        keys.append(dial_target.key_index % 2)
        harness.fail(dial_target)
        harness.now = dial_target.due
    assert keys == [1, 0, 1, 0]
    harness.hint("one", key=1)
    (dial_target,) = harness.due()
    assert dial_target.key_index == 1


def test_own_address_is_retried_rarely() -> None:
    harness = DialHarness()
    harness.hint("me")
    (dial_target,) = harness.due()
    assert harness.fail(dial_target, myself=True) >= 0.75 * SELF_RETRY


def test_new_node_at_a_known_address_is_dialled_at_once() -> None:
    harness = DialHarness()
    harness.hint("one", node="old")
    (dial_target,) = harness.due()
    for _ in range(8):
        harness.fail(dial_target)
    harness.hint("one", node="old")
    assert harness.due() == []
    harness.hint("one")
    assert harness.due() == []
    harness.hint("one", node="new")
    assert harness.due() == [dial_target]
    assert harness.fail(dial_target) <= 1.25 * FIRST_RETRY


def test_successful_join_sets_the_node_of_its_target() -> None:
    harness = DialHarness()
    harness.hint("one", node="claimed")
    (dial_target,) = harness.due()
    harness.dial_targets.succeeded(dial_target, "true", harness.now)
    harness.linked = {"true"}
    harness.now += 100
    assert harness.due() == []


def test_lost_node_is_dialled_soon() -> None:
    harness = DialHarness()
    harness.hint("one", "other", node="n")
    first, second = harness.due()
    harness.dial_targets.succeeded(first, "n", harness.now)
    for _ in range(8):
        harness.fail(second)
    harness.linked = {"n"}
    harness.now += 1000
    harness.linked = set()
    harness.dial_targets.lost("n", harness.now)
    assert harness.due() == []
    harness.now += FIRST_RETRY
    assert harness.due() == [first, second]
    assert harness.fail(second) <= 1.25 * FIRST_RETRY


def test_target_without_new_hints_is_removed() -> None:
    harness = DialHarness()
    harness.hint("lost", "configured")
    for dial_target in harness.due():
        harness.fail(dial_target)
    harness.now += FORGET_AFTER
    harness.hint("configured")  # as every round of the seeds does
    harness.now += 1
    assert addresses(harness.due()) == ["configured"]
    assert len(harness.dial_targets) == 1


def test_target_of_a_linked_node_is_kept() -> None:
    harness = DialHarness()
    harness.hint("one", node="n")
    (dial_target,) = harness.due()
    harness.dial_targets.succeeded(dial_target, "n", harness.now)
    harness.linked = {"n"}
    harness.now += 10 * FORGET_AFTER
    assert harness.due() == []
    harness.linked = set()
    harness.dial_targets.lost("n", harness.now)
    harness.now += FIRST_RETRY
    assert harness.due() == [dial_target]


def test_simultaneous_dials_are_bounded() -> None:
    harness = DialHarness()
    harness.hint(*map(str, range(2 * MAX_CONCURRENT)))
    first = harness.due()
    assert len(first) == MAX_CONCURRENT
    assert harness.due() == []
    for dial_target in first[:3]:
        harness.fail(dial_target)
    assert len(harness.due()) == 3


def test_unreachable_targets_do_not_delay_a_new_one() -> None:
    """Hundreds of targets time out later than their retry pause, and a new target is added."""
    harness = DialHarness()
    harness.hint(*map(str, range(10 * MAX_CONCURRENT)))
    dialled: set[str] = set()
    dialling: list[DialTarget] = []
    rounds = 0
    while "new" not in dialled:
        rounds += 1
        assert rounds < 30
        if rounds == 5:
            harness.hint("new")
        for dial_target in dialling:
            harness.fail(dial_target)
        harness.now += LONGEST_RETRY
        dialling = harness.due()
        assert len(dialling) == MAX_CONCURRENT
        dialled.update(addresses(dialling))
    assert rounds <= 5 + 11


def test_table_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TARGETS", 3)
    harness = DialHarness()
    harness.hint("1", "2", "3", "4", "5")
    assert len(harness.dial_targets) == 3
    assert harness.dial_targets.refused == 2
    for dial_target in harness.due():
        harness.fail(dial_target)
    harness.hint("6", "1", node="n")
    assert addresses(harness.due()) == ["1"], "a known target is updated although the table is full"


# Untrusted hints: anyone on the link can send them.


def test_copies_of_one_record_have_limited_room_and_do_not_delay_a_seed() -> None:
    harness = DialHarness()
    for number in range(300):
        hosts = [f"203.0.{number}.{host}" for host in range(16)]
        harness.hint(*hosts, node="copied", trusted=False)
    assert len(harness.dial_targets) == MAX_UNTRUSTED_OF_NODE
    harness.now += 1
    harness.hint("seed")
    assert addresses(harness.due())[0] == "seed"


def test_untrusted_hints_of_many_nodes_leave_room_for_seeds_and_known_peers() -> None:
    harness = DialHarness()
    for number in range(2 * MAX_UNTRUSTED):
        harness.hint(f"untrusted {number}", node=f"n{number}", trusted=False)
    assert len(harness.dial_targets) == MAX_UNTRUSTED
    assert harness.dial_targets.refused == MAX_UNTRUSTED
    assert len(harness.due()) == MAX_CONCURRENT_UNTRUSTED
    harness.now += 1
    harness.hint("seed")
    harness.hint("peer", node="known")
    assert addresses(harness.due()) == ["seed", "peer"], "although others are due longer"


def test_real_address_replaces_the_copy_that_failed_most_often() -> None:
    harness = DialHarness()
    copies = [f"copy {number}" for number in range(MAX_UNTRUSTED_OF_NODE)]
    harness.hint(*copies, node="n", trusted=False)
    for dial_target in harness.due():
        harness.fail(dial_target)
    harness.now += 1
    (first, *_) = harness.due()
    harness.fail(first)
    harness.hint("real", node="n", trusted=False)
    known = [each.address for each in harness.dial_targets._all.values()]
    assert first.address not in known
    assert "real" in known


@pytest.mark.parametrize(("nodes", "most"), [(1, 45), (2, 105)], ids=["one node", "two nodes"])
def test_untrusted_address_that_never_answers_is_dialled_a_few_times_a_minute(
    nodes: int, most: int
) -> None:
    """In ten minutes, while copied records claim one node or two nodes in turn."""
    harness = DialHarness()
    dials = 0
    for step in range(1200):
        harness.hint("third party", node=f"n{step % nodes}", trusted=False)
        for dial_target in harness.due():
            dials += 1
            harness.fail(dial_target)
        harness.now += 0.5
    assert 600 / LONGEST_UNTRUSTED_RETRY / 2 < dials <= most


def test_joined_address_becomes_trusted() -> None:
    harness = DialHarness()
    harness.hint("one", node="n", trusted=False)
    (dial_target,) = harness.due()
    harness.dial_targets.succeeded(dial_target, "n", harness.now)
    for number in range(2 * MAX_UNTRUSTED):
        harness.hint(f"untrusted {number}", node=f"m{number}", trusted=False)
    harness.dial_targets.lost("n", harness.now)
    harness.now += FIRST_RETRY
    assert addresses(harness.due())[0] == "one"


# Whether the relay may still find peers.


def test_exploring_until_every_address_was_tried() -> None:
    harness = DialHarness()
    assert harness.due() == []
    assert not harness.dial_targets.exploring
    harness.hint("seed")
    harness.hint("found", node="n")
    seed, found = harness.due()
    assert harness.dial_targets.exploring
    harness.fail(seed)
    harness.due()
    assert harness.dial_targets.exploring, "`found` is still being dialled"
    harness.dial_targets.succeeded(found, "n", harness.now)
    harness.linked = {"n"}
    harness.due()
    assert not harness.dial_targets.exploring


def test_other_addresses_of_a_linked_node_are_not_explored() -> None:
    harness = DialHarness()
    harness.linked = {"n"}
    harness.hint("one", "other", node="n")
    harness.due()
    assert not harness.dial_targets.exploring
    harness.hint("third", node="m")
    harness.due()
    assert harness.dial_targets.exploring, "that node may know other peers"


def test_new_node_at_an_address_is_explored() -> None:
    harness = DialHarness()
    harness.hint("one", node="old")
    (dial_target,) = harness.due()
    harness.fail(dial_target)
    harness.due()
    assert not harness.dial_targets.exploring
    harness.hint("one", node="new")
    harness.due()
    assert harness.dial_targets.exploring


@given(st.data())
def test_dials_stay_within_their_limit_and_end(data: st.DataObject) -> None:
    harness = DialHarness()
    dialling: list[DialTarget] = []
    for _ in range(data.draw(st.integers(0, 30))):
        harness.now += data.draw(st.sampled_from([0.0, 0.1, 5.0, 700.0]))
        event = data.draw(st.sampled_from(["hint", "fail", "succeed", "lost", "due"]))
        node = data.draw(st.sampled_from(["n", "m", None]))
        if event == "hint":
            harness.hint(*data.draw(st.lists(st.sampled_from("abcdef"), max_size=3)), node=node)
        elif event == "lost" and node:
            harness.linked.discard(node)
            harness.dial_targets.lost(node, harness.now)
        elif event in {"fail", "succeed"} and dialling:
            dial_target = dialling.pop()
            if event == "fail":
                harness.fail(dial_target)
            else:
                harness.dial_targets.succeeded(dial_target, node or "n", harness.now)
                harness.linked.add(node or "n")
        for dial_target in harness.due():
            assert dial_target not in dialling
            assert dial_target.node not in harness.linked
            assert dial_target.due <= harness.now
            dialling.append(dial_target)
        assert len(dialling) <= MAX_CONCURRENT
