"""The rotation, with a simulated clock and seeded random numbers."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arke_proxy.backends.address import BackendAddress
from arke_proxy.balancing.balancer import Outcome
from arke_proxy.balancing.rotation import Rotation
from arke_proxy.errors import AllBackendsTried, NoBackend, ProxyError
from support.recorded_warnings import RecordedWarnings

ADDRESSES = [BackendAddress("127.0.0.1", port) for port in range(1, 11)]
ONE, TWO, THREE, FOUR, *_ = ADDRESSES


class Bench:
    """A rotation whose backends are past slow start."""

    def __init__(
        self, *addresses: BackendAddress, weights: dict[BackendAddress, float] | None = None
    ) -> None:
        self.now = 100.0
        self.warnings = RecordedWarnings()
        self.departed: list[BackendAddress] = []
        self.rotation = Rotation(
            "web",
            self.warnings,
            lambda: self.now,
            random.Random(7).random,
            self.departed.append,
        )
        for address in addresses:
            self.rotation.add(address, (weights or {}).get(address, 1.0))
        self.now += 10

    def answer(self, outcome: Outcome = Outcome.ANSWERED) -> BackendAddress:
        address = self.rotation.pick_now(())
        self.fate(address, outcome)
        return address

    def fate(self, address: BackendAddress, outcome: Outcome) -> None:
        self.rotation.request_started(address)
        self.rotation.request_ended(address, outcome)

    def shares(self, requests: int = 1000) -> Counter[BackendAddress]:
        return Counter(self.answer() for _ in range(requests))

    def out(self) -> set[BackendAddress]:
        return {one.address for one in self.rotation.statuses() if one.ejected}

    def used(self) -> set[BackendAddress]:
        return {one.address for one in self.rotation.statuses() if one.in_use}


def test_empty_rotation_raises_no_backend() -> None:
    with pytest.raises(NoBackend, match="Cluster web has no members"):
        Bench().rotation.pick_now(())


def test_idle_backends_get_equal_shares() -> None:
    shares = Bench(*ADDRESSES).shares()
    assert min(shares.values()) > 60
    assert max(shares.values()) < 140


@pytest.mark.parametrize("others", [1, 4])
def test_idle_backends_get_shares_by_weight(others: int) -> None:
    bench = Bench(*ADDRESSES[: others + 1], weights={ONE: 4.0})
    expected = 1000 * 4 / (4 + others)
    assert 0.8 * expected < bench.shares()[ONE] < 1.2 * expected


def test_of_two_backends_the_less_busy_one_is_picked() -> None:
    bench = Bench(ONE, TWO)
    bench.rotation.request_started(ONE)
    assert {bench.answer() for _ in range(20)} == {TWO}
    bench.rotation.request_ended(ONE, Outcome.ABANDONED)
    assert bench.used() == {ONE, TWO}
    assert {bench.answer() for _ in range(20)} == {ONE, TWO}


def test_outstanding_requests_follow_weights_under_load() -> None:
    bench = Bench(ONE, TWO, THREE, weights={ONE: 2.0})
    for _ in range(400):
        bench.rotation.request_started(bench.rotation.pick_now(()))
    counts = {one.address: one.outstanding for one in bench.rotation.statuses()}
    assert abs(counts[ONE] - 200) < 10
    assert abs(counts[TWO] - 100) < 10


def test_busiest_backend_is_never_picked() -> None:
    bench = Bench(*ADDRESSES)
    for _ in range(3):
        bench.rotation.request_started(ONE)
    assert ONE not in bench.shares(200)


def test_slow_start_share_grows() -> None:
    bench = Bench(ONE, TWO, THREE)
    bench.rotation.add(FOUR)
    shares = []
    for _ in range(4):
        shares.append(bench.shares()[FOUR])
        bench.now += 3.5
    assert shares == sorted(shares)
    assert shares[0] < 60
    assert shares[-1] > 200


def test_slow_start_limits_outstanding_requests_under_load() -> None:
    bench = Bench(ONE)
    bench.rotation.add(TWO)
    for _ in range(110):
        bench.rotation.request_started(bench.rotation.pick_now(()))
    counts = {one.address: one.outstanding for one in bench.rotation.statuses()}
    assert 5 < counts[TWO] < 15


def test_sticky_backend_is_picked_while_usable() -> None:
    bench = Bench(*ADDRESSES)
    assert {bench.rotation.pick_now((), TWO) for _ in range(20)} == {TWO}
    assert bench.rotation.pick_now({TWO}, TWO) != TWO
    assert bench.rotation.pick_now((), BackendAddress("192.0.2.1", 80)) in ADDRESSES
    bench.rotation.connect_failed(TWO)
    assert TWO not in {bench.rotation.pick_now((), TWO) for _ in range(20)}


# Health.


def test_unreachable_backend_is_ejected_at_once() -> None:
    bench = Bench(*ADDRESSES)
    bench.rotation.connect_failed(ONE)
    assert ONE not in bench.shares()
    assert bench.warnings == [
        "backend ejected from rotation backend=127.0.0.1:1 reason=connecting to it failed"
    ]


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.TIMED_OUT])
def test_failed_or_timed_out_request_ejects_backend_at_once(outcome: Outcome) -> None:
    bench = Bench(*ADDRESSES)
    bench.fate(ONE, outcome)
    assert ONE not in bench.shares()


def test_five_unavailable_answers_in_a_row_eject_backend() -> None:
    bench = Bench(*ADDRESSES)
    for _ in range(3):
        for _ in range(4):
            bench.fate(ONE, Outcome.UNAVAILABLE)
        bench.fate(ONE, Outcome.ANSWERED)
    assert not bench.out()
    for _ in range(5):
        bench.fate(ONE, Outcome.UNAVAILABLE)
    assert bench.out() == {ONE}


def test_client_disconnects_do_not_eject_backend() -> None:
    bench = Bench(ONE, TWO)
    for _ in range(100):
        bench.fate(ONE, Outcome.ABANDONED)
    assert not bench.out()


def test_successful_trial_request_ends_ejection() -> None:
    bench = Bench(ONE, TWO, THREE)
    bench.rotation.connect_failed(ONE)
    bench.now += 1
    given = [bench.rotation.pick_now(()) for _ in range(20)]
    assert given.count(ONE) == 1
    bench.fate(ONE, Outcome.ANSWERED)
    assert not bench.out()
    assert bench.warnings[-1] == "backend returned to rotation backend=127.0.0.1:1"


def test_retried_request_is_not_used_as_trial() -> None:
    bench = Bench(ONE, TWO, THREE)
    bench.rotation.connect_failed(ONE)
    bench.now += 1
    assert {bench.rotation.pick_now({TWO}) for _ in range(20)} == {THREE}
    assert bench.rotation.pick_now(()) == ONE


def test_failed_trial_doubles_ejection() -> None:
    bench = Bench(ONE, TWO, THREE)
    bench.rotation.connect_failed(ONE)
    trials = []
    for tenth in range(200):
        bench.now = 110 + tenth / 10
        if bench.rotation.pick_now(()) == ONE:
            trials.append(tenth / 10)
            bench.rotation.connect_failed(ONE)
    assert trials == pytest.approx([1, 3, 7, 15], abs=0.15)


def test_trial_without_outcome_is_followed_by_another() -> None:
    bench = Bench(ONE, TWO, THREE)
    bench.rotation.connect_failed(ONE)
    bench.now += 1
    assert bench.rotation.pick_now(()) == ONE
    bench.now += 2
    assert bench.rotation.pick_now(()) == ONE


def test_recovered_backend_gets_slow_start() -> None:
    bench = Bench(ONE, TWO, THREE)
    bench.rotation.connect_failed(ONE)
    bench.now += 1
    assert bench.answer() == ONE
    assert bench.shares()[ONE] < 100


def test_answer_to_earlier_request_does_not_end_ejection() -> None:
    bench = Bench(ONE, TWO, THREE)
    for _ in range(2):
        bench.rotation.request_started(ONE)
    assert ONE in bench.used()
    bench.rotation.connect_failed(ONE)
    bench.rotation.request_ended(ONE, Outcome.ANSWERED)
    assert bench.out() == {ONE}
    bench.rotation.pick_now(())
    bench.rotation.request_ended(ONE, Outcome.ANSWERED)
    assert bench.out() == {ONE}


# Panic mode.


def test_panic_mode_ignores_ejections_when_more_than_half_are_ejected() -> None:
    bench = Bench(ONE, TWO, THREE, FOUR)
    bench.fate(ONE, Outcome.FAILED)
    bench.fate(TWO, Outcome.FAILED)
    assert bench.used() == {THREE, FOUR}
    bench.fate(THREE, Outcome.FAILED)
    assert bench.used() == {ONE, TWO, THREE, FOUR}
    assert bench.rotation.panicking
    assert bench.warnings[-1] == (
        "panic mode: too many backends are ejected, so all reachable ones are used"
        " cluster=web ejected=3 backends=4"
    )
    assert {bench.rotation.pick_now(()) for _ in range(100)} == {ONE, TWO, THREE, FOUR}
    bench.fate(ONE, Outcome.ANSWERED)  # half are healthy: panic mode ends
    assert bench.used() == {ONE, FOUR}
    assert not bench.rotation.panicking


def test_panic_mode_prefers_reachable_backends() -> None:
    bench = Bench(ONE, TWO, THREE)
    bench.rotation.connect_failed(ONE)
    bench.rotation.connect_failed(TWO)
    assert bench.used() == {THREE}
    bench.rotation.connect_failed(THREE)
    assert bench.used() == {ONE, TWO, THREE}


def test_only_backend_is_used_even_if_ejected() -> None:
    bench = Bench(ONE)
    for outcome in (Outcome.FAILED, Outcome.TIMED_OUT, *[Outcome.UNAVAILABLE] * 9):
        bench.fate(ONE, outcome)
        assert bench.rotation.pick_now(()) == ONE
    bench.rotation.connect_failed(ONE)
    assert bench.rotation.pick_now(()) == ONE


def test_retry_uses_ejected_backend_if_no_other_is_left() -> None:
    bench = Bench(ONE, TWO, THREE)
    bench.rotation.connect_failed(ONE)
    assert bench.rotation.pick_now({TWO}) == THREE
    assert bench.rotation.pick_now({TWO, THREE}) == ONE
    with pytest.raises(AllBackendsTried, match="Cluster web has no other backend"):
        bench.rotation.pick_now({ONE, TWO, THREE})


# Active health checks.


def test_two_failed_checks_eject_and_one_passed_check_recovers() -> None:
    bench = Bench(ONE, TWO, THREE)
    bench.rotation.check_failed(ONE, "status 500", reachable=True)
    assert not bench.out()
    bench.rotation.check_failed(ONE, "status 500", reachable=True)
    assert bench.out() == {ONE}
    assert bench.warnings == [
        "backend ejected from rotation backend=127.0.0.1:1 reason=health check failed: status 500"
    ]
    bench.now += 1000
    assert ONE not in bench.shares()  # no trial request: only a passed check ends this ejection
    bench.rotation.check_passed(ONE)
    assert not bench.out()


def test_failed_checks_count_only_in_a_row() -> None:
    bench = Bench(ONE, TWO, THREE)
    for _ in range(3):
        bench.rotation.check_failed(ONE, "failed", reachable=True)
        bench.rotation.check_passed(ONE)
    assert not bench.out()


def test_passed_check_ends_ejection() -> None:
    bench = Bench(ONE, TWO, THREE)
    bench.rotation.connect_failed(ONE)
    bench.rotation.check_passed(ONE)
    assert not bench.out()


def test_panic_mode_uses_all_when_all_checks_fail() -> None:
    bench = Bench(ONE, TWO)
    for address in (ONE, TWO, ONE, TWO):
        bench.rotation.check_failed(address, "failed", reachable=True)
    assert set(bench.shares()) == {ONE, TWO}
    assert bench.out() == {ONE, TWO}


# Joining and leaving.


def test_idle_connections_are_closed_when_backend_departs() -> None:
    bench = Bench(ONE, TWO)
    for address in (ONE, ONE, TWO):
        bench.rotation.request_started(address)
    bench.rotation.remove(ONE)
    bench.rotation.mark_departed(TWO)
    assert bench.departed == [ONE, TWO]
    for address in (ONE, TWO, ONE, ONE):
        bench.rotation.request_ended(address, Outcome.ANSWERED)
    assert bench.departed[2:] == [ONE, TWO, ONE, ONE]
    assert bench.answer() == TWO
    bench.departed.clear()
    bench.rotation.add(TWO)
    bench.answer()
    assert not bench.departed


def test_removed_backend_drains() -> None:
    bench = Bench(ONE, TWO)
    for _ in range(2):
        bench.rotation.request_started(ONE)
    bench.rotation.connect_failed(ONE)
    bench.rotation.remove(ONE)
    assert len(bench.rotation) == 1
    assert ONE not in bench.rotation
    assert set(bench.shares(50)) == {TWO}
    bench.rotation.request_ended(ONE, Outcome.FAILED)
    bench.rotation.add(ONE)  # the same address, with a request still running
    assert {one.address: one.outstanding for one in bench.rotation.statuses()}[ONE] == 1
    assert not bench.out()  # health is reset
    bench.rotation.request_ended(ONE, Outcome.ANSWERED)
    bench.rotation.remove(ONE)
    bench.rotation.remove(ONE)
    bench.rotation.request_ended(ONE, Outcome.ANSWERED)
    assert len(bench.rotation) == 1


class Twin:
    """A model of the rotation, with the invariants that hold after any step."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.present: set[BackendAddress] = set()
        self.begun: Counter[BackendAddress] = Counter()

    def join(self, address: BackendAddress) -> None:
        self.bench.rotation.add(address, 1.0 + address.port)
        self.present.add(address)

    def leave(self, address: BackendAddress) -> None:
        self.bench.rotation.remove(address)
        self.present.discard(address)

    def request(self, address: BackendAddress) -> None:
        self.bench.rotation.request_started(address)
        if self.known(address):
            self.begun[address] += 1

    def known(self, address: BackendAddress) -> bool:
        return address in self.present or self.begun[address] > 0

    def end(self, address: BackendAddress, outcome: Outcome) -> None:
        self.bench.rotation.request_ended(address, outcome)
        self.begun[address] = max(0, self.begun[address] - 1)

    def hold(self) -> None:
        rotation = self.bench.rotation
        statuses = rotation.statuses()
        assert {one.address for one in statuses} == self.present
        assert len(rotation) == len(self.present)
        for one in statuses:
            assert one.outstanding == self.begun[one.address]
        assert not self.present or any(one.in_use for one in statuses)
        tried: set[BackendAddress] = set()
        for _ in self.present:
            address = rotation.pick_now(tried)
            assert address in self.present - tried
            tried.add(address)
        with pytest.raises(ProxyError):
            rotation.pick_now(tried)


ADDRESS = st.sampled_from(ADDRESSES[:4])
STEP: st.SearchStrategy[Callable[[Twin], None]] = st.one_of(
    st.builds(lambda a: lambda twin: twin.join(a), ADDRESS),
    st.builds(lambda a: lambda twin: twin.leave(a), ADDRESS),
    st.builds(lambda a: lambda twin: twin.request(a), ADDRESS),
    st.builds(lambda a, o: lambda twin: twin.end(a, o), ADDRESS, st.sampled_from(Outcome)),
    st.builds(lambda a: lambda twin: twin.bench.rotation.connect_failed(a), ADDRESS),
    st.builds(
        lambda a: lambda twin: twin.bench.rotation.check_failed(a, "failed", reachable=True),
        ADDRESS,
    ),
    st.builds(lambda a: lambda twin: twin.bench.rotation.check_passed(a), ADDRESS),
    st.builds(
        lambda s: lambda twin: setattr(twin.bench, "now", twin.bench.now + s),
        st.floats(0, 100),
    ),
)


@given(st.lists(STEP, max_size=40))
def test_present_backends_are_picked_and_no_others(
    steps: list[Callable[[Twin], None]],
) -> None:
    twin = Twin()
    for step in steps:
        step(twin)
        twin.hold()
