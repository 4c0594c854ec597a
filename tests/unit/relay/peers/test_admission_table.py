"""The admission table: admit, renew, expire, revoke."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from arke_relay.errors import JoinRefused, RefusalCode
from arke_relay.peers.admission_table import CAPACITY, AdmissionTable
from arke_relay.peers.join_handshake import AdmittedPeer
from arke_relay.peers.node_info import NodeInfo


def joined_peer(number: int, *, key: int | None = None, lifetime: int = 100) -> AdmittedPeer:
    """Return the outcome of a join with node `number`; its CURVE key is `key` or `number`."""
    return AdmittedPeer(
        node=f"{number:016x}",
        curve_key=(number if key is None else key).to_bytes(32),
        lifetime=lifetime,
        info=NodeInfo(55556, 55557, "", "0.1.0", 1 << 24),
        signed_by="0" * 16,
    )


ONE, TWO = joined_peer(1), joined_peer(2)


@contextmanager
def refused(code: RefusalCode) -> Iterator[None]:
    with pytest.raises(JoinRefused) as caught:
        yield
    assert caught.value.code is code
    assert not caught.value.by_peer


@pytest.fixture
def table() -> AdmissionTable:
    return AdmissionTable()


def test_table_starts_empty(table: AdmissionTable) -> None:
    assert table.lookup(ONE.curve_key, 0.0) is None
    assert table.key_of(ONE.node) is None
    assert len(table) == 0


def test_lookup_by_key_and_by_node(table: AdmissionTable) -> None:
    table.admit(ONE, 1000.0)
    assert table.lookup(ONE.curve_key, 1000.0) == ONE.node
    assert table.key_of(ONE.node) == ONE.curve_key
    assert table.lookup(TWO.curve_key, 1000.0) is None


def test_admission_expires_by_itself(table: AdmissionTable) -> None:
    table.admit(ONE, 1000.0)
    assert table.lookup(ONE.curve_key, 1099.999) == ONE.node
    assert table.lookup(ONE.curve_key, 1100.0) is None
    assert table.lookup(ONE.curve_key, 9999.0) is None


def test_expired_nodes_are_returned_once(table: AdmissionTable) -> None:
    table.admit(ONE, 1000.0)
    table.admit(TWO, 1050.0)
    assert table.expired(1099.0) == []
    assert table.expired(1100.0) == [ONE.node]
    assert table.expired(1100.0) == []
    assert table.key_of(ONE.node) is None
    assert len(table) == 1


def test_renewal_is_due_after_half_the_lifetime(table: AdmissionTable) -> None:
    table.admit(ONE, 1000.0)
    assert table.renew_due(1049.0) == []
    assert table.renew_due(1050.0) == [ONE.node]
    assert table.renew_due(1099.0) == [ONE.node]
    assert table.renew_due(1100.0) == []


def test_renewed_lifetime_counts_from_the_renewal(table: AdmissionTable) -> None:
    table.admit(ONE, 1000.0)
    table.admit(joined_peer(1, lifetime=10), 1050.0)
    assert table.renew_due(1050.0) == []
    assert table.lookup(ONE.curve_key, 1059.0) == ONE.node
    assert table.lookup(ONE.curve_key, 1060.0) is None
    assert len(table) == 1


def test_admitted_node_cannot_change_its_key(table: AdmissionTable) -> None:
    table.admit(ONE, 1000.0)
    with refused(RefusalCode.NODE_ID_IN_USE):
        table.admit(joined_peer(1, key=9), 1099.0)
    assert table.lookup(ONE.curve_key, 1099.0) == ONE.node
    assert table.lookup(joined_peer(9).curve_key, 1099.0) is None


def test_admitted_key_cannot_change_its_node(table: AdmissionTable) -> None:
    table.admit(ONE, 1000.0)
    with refused(RefusalCode.CURVE_KEY_IN_USE):
        table.admit(joined_peer(9, key=1), 1099.0)
    assert table.key_of(joined_peer(9).node) is None


def test_key_and_node_may_change_after_expiry(table: AdmissionTable) -> None:
    table.admit(ONE, 1000.0)
    table.admit(joined_peer(1, key=9), 1100.0)
    assert table.lookup(ONE.curve_key, 1100.0) is None
    assert table.key_of(ONE.node) == joined_peer(9).curve_key
    table.admit(joined_peer(3, key=9), 1200.0)
    assert table.key_of(ONE.node) is None
    assert len(table) == 1


def test_revoked_node_may_join_again(table: AdmissionTable) -> None:
    table.admit(ONE, 1000.0)
    table.revoke(ONE.node)
    table.revoke(TWO.node)
    assert table.lookup(ONE.curve_key, 1000.0) is None
    assert table.expired(2000.0) == []
    table.admit(ONE, 1001.0)
    assert table.lookup(ONE.curve_key, 1001.0) == ONE.node


def test_full_table_renews_but_admits_no_further_node(table: AdmissionTable) -> None:
    for number in range(CAPACITY):
        table.admit(joined_peer(number), 1000.0)
    with refused(RefusalCode.TOO_MANY_PEERS):
        table.admit(joined_peer(CAPACITY), 1000.0)
    table.admit(ONE, 1090.0)
    assert len(table.expired(1100.0)) == CAPACITY - 1
    table.admit(joined_peer(CAPACITY), 1100.0)
    assert len(table) == 2


class AdmissionTableModel(RuleBasedStateMachine):
    """The table gives the same answers as a plain list of admissions."""

    def __init__(self) -> None:
        super().__init__()
        self.table = AdmissionTable()
        self.live: dict[int, tuple[int, float]] = {}
        self.now = 0.0

    @rule(node=st.integers(0, 3), key=st.integers(0, 3), lifetime=st.integers(1, 5))
    def admit(self, node: int, key: int, lifetime: int) -> None:
        clash = any((n == node) != (k == key) for n, (k, _) in self.live.items())
        try:
            self.table.admit(joined_peer(node, key=key, lifetime=lifetime), self.now)
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


TestAdmissionTableModel = AdmissionTableModel.TestCase
