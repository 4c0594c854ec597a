from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from arke_relay.errors import JoinRefused
from arke_relay.peers.admission import CAPACITY, Admissions
from arke_relay.peers.introduction import Introduction
from arke_relay.peers.join_handshake import Admitted


def outcome(number: int, *, key: int | None = None, lifetime: int = 100) -> Admitted:
    """Of a join with node `number`, which holds its own CURVE key unless `key` says another."""
    return Admitted(
        node=f"{number:016x}",
        curve_key=(number if key is None else key).to_bytes(32),
        lifetime=lifetime,
        introduction=Introduction(55556, 55557, "", "0.1.0", 1 << 24),
        signed_by="0" * 16,
    )


ONE, TWO = outcome(1), outcome(2)


@pytest.fixture
def table() -> Admissions:
    return Admissions()


def test_nobody_is_admitted_at_first(table: Admissions) -> None:
    assert table.lookup(ONE.curve_key, 0.0) is None
    assert table.key_of(ONE.node) is None
    assert len(table) == 0


def test_the_admitted_are_found_both_ways(table: Admissions) -> None:
    table.admit(ONE, 1000.0)
    assert table.lookup(ONE.curve_key, 1000.0) == ONE.node
    assert table.key_of(ONE.node) == ONE.curve_key
    assert table.lookup(TWO.curve_key, 1000.0) is None


def test_an_admission_ends_whether_or_not_anybody_looks(table: Admissions) -> None:
    table.admit(ONE, 1000.0)
    assert table.lookup(ONE.curve_key, 1099.999) == ONE.node
    assert table.lookup(ONE.curve_key, 1100.0) is None
    assert table.lookup(ONE.curve_key, 9999.0) is None


def test_the_expired_are_collected_once(table: Admissions) -> None:
    table.admit(ONE, 1000.0)
    table.admit(TWO, 1050.0)
    assert table.expired(1099.0) == []
    assert table.expired(1100.0) == [ONE.node]
    assert table.expired(1100.0) == []
    assert table.key_of(ONE.node) is None
    assert len(table) == 1


def test_renewal_is_due_from_half_of_life(table: Admissions) -> None:
    table.admit(ONE, 1000.0)
    assert table.renew_due(1049.0) == []
    assert table.renew_due(1050.0) == [ONE.node]
    assert table.renew_due(1099.0) == [ONE.node]
    assert table.renew_due(1100.0) == []


def test_a_renewal_counts_from_its_own_moment(table: Admissions) -> None:
    table.admit(ONE, 1000.0)
    table.admit(outcome(1, lifetime=10), 1050.0)
    assert table.renew_due(1050.0) == []
    assert table.lookup(ONE.curve_key, 1059.0) == ONE.node
    assert table.lookup(ONE.curve_key, 1060.0) is None
    assert len(table) == 1


def test_a_node_keeps_its_key_while_it_is_admitted(table: Admissions) -> None:
    table.admit(ONE, 1000.0)
    with pytest.raises(JoinRefused, match="admitted with another CURVE key"):
        table.admit(outcome(1, key=9), 1099.0)
    assert table.lookup(ONE.curve_key, 1099.0) == ONE.node
    assert table.lookup(outcome(9).curve_key, 1099.0) is None


def test_a_key_keeps_its_node_while_it_is_admitted(table: Admissions) -> None:
    table.admit(ONE, 1000.0)
    with pytest.raises(JoinRefused, match="admitted for another node"):
        table.admit(outcome(9, key=1), 1099.0)
    assert table.key_of(outcome(9).node) is None


def test_both_may_change_afterwards(table: Admissions) -> None:
    table.admit(ONE, 1000.0)
    table.admit(outcome(1, key=9), 1100.0)
    assert table.lookup(ONE.curve_key, 1100.0) is None
    assert table.key_of(ONE.node) == outcome(9).curve_key
    table.admit(outcome(3, key=9), 1200.0)
    assert table.key_of(ONE.node) is None
    assert len(table) == 1


def test_a_revoked_node_is_out_at_once_and_may_return(table: Admissions) -> None:
    table.admit(ONE, 1000.0)
    table.revoke(ONE.node)
    table.revoke(TWO.node)
    assert table.lookup(ONE.curve_key, 1000.0) is None
    assert table.expired(2000.0) == []
    table.admit(ONE, 1001.0)
    assert table.lookup(ONE.curve_key, 1001.0) == ONE.node


def test_a_full_table_renews_and_refuses(table: Admissions) -> None:
    for number in range(CAPACITY):
        table.admit(outcome(number), 1000.0)
    with pytest.raises(JoinRefused, match="4096 peers"):
        table.admit(outcome(CAPACITY), 1000.0)
    table.admit(ONE, 1090.0)
    assert len(table.expired(1100.0)) == CAPACITY - 1
    table.admit(outcome(CAPACITY), 1100.0)
    assert len(table) == 2


class AgainstAList(RuleBasedStateMachine):
    """Whatever happens, the table says what a plain list of admissions would say."""

    def __init__(self) -> None:
        super().__init__()
        self.table = Admissions()
        self.live: dict[int, tuple[int, float]] = {}
        self.now = 0.0

    @rule(node=st.integers(0, 3), key=st.integers(0, 3), lifetime=st.integers(1, 5))
    def admit(self, node: int, key: int, lifetime: int) -> None:
        clash = any((n == node) != (k == key) for n, (k, _) in self.live.items())
        try:
            self.table.admit(outcome(node, key=key, lifetime=lifetime), self.now)
        except JoinRefused:
            assert clash
        else:
            assert not clash
            self.live[node] = key, self.now + lifetime

    @rule(seconds=st.integers(0, 4))
    def wait(self, seconds: int) -> None:
        self.now += seconds
        self.live = {n: (k, end) for n, (k, end) in self.live.items() if self.now < end}

    @rule(node=st.integers(0, 3))
    def revoke(self, node: int) -> None:
        self.table.revoke(f"{node:016x}")
        self.live.pop(node, None)

    @rule()
    def collect(self) -> None:
        over = self.table.expired(self.now)
        assert not {int(node, 16) for node in over} & self.live.keys()
        assert len(self.table) == len(self.live)

    @invariant()
    def same_answers(self) -> None:
        for key in range(4):
            node = next((n for n, (k, _) in self.live.items() if k == key), None)
            expected = None if node is None else f"{node:016x}"
            assert self.table.lookup(key.to_bytes(32), self.now) == expected


TestAgainstAList = AgainstAList.TestCase
