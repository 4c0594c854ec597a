"""Rotation: picking, health, panic mode and draining; simulated clock, seeded random numbers."""

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


class RotationHarness:
    """A rotation with a simulated clock. Slow start of its first backends has ended."""

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

    def run_picked_request(self) -> BackendAddress:
        """Pick a backend, and run a request there that is answered."""
        address = self.rotation.pick_now(())
        self.run_request(address, Outcome.ANSWERED)
        return address

    def run_request(self, address: BackendAddress, outcome: Outcome) -> None:
        self.rotation.request_started(address)
        self.rotation.request_ended(address, outcome)

    def shares(self, requests: int = 1000) -> Counter[BackendAddress]:
        return Counter(self.run_picked_request() for _ in range(requests))

    def ejected(self) -> set[BackendAddress]:
        return {status.address for status in self.rotation.statuses() if status.ejected}

    def in_use(self) -> set[BackendAddress]:
        return {status.address for status in self.rotation.statuses() if status.in_use}


def test_empty_rotation_raises_no_backend() -> None:
    with pytest.raises(NoBackend, match="Cluster web has no members"):
        RotationHarness().rotation.pick_now(())


def test_idle_backends_get_equal_shares() -> None:
    shares = RotationHarness(*ADDRESSES).shares()
    assert min(shares.values()) > 60
    assert max(shares.values()) < 140


@pytest.mark.parametrize("other_backends", [1, 4])
def test_idle_backends_get_shares_by_weight(other_backends: int) -> None:
    harness = RotationHarness(*ADDRESSES[: other_backends + 1], weights={ONE: 4.0})
    expected = 1000 * 4 / (4 + other_backends)
    assert 0.8 * expected < harness.shares()[ONE] < 1.2 * expected


def test_of_two_backends_the_less_busy_one_is_picked() -> None:
    harness = RotationHarness(ONE, TWO)
    harness.rotation.request_started(ONE)
    assert {harness.run_picked_request() for _ in range(20)} == {TWO}
    harness.rotation.request_ended(ONE, Outcome.ABANDONED)
    assert harness.in_use() == {ONE, TWO}
    assert {harness.run_picked_request() for _ in range(20)} == {ONE, TWO}


def test_outstanding_requests_follow_weights_under_load() -> None:
    harness = RotationHarness(ONE, TWO, THREE, weights={ONE: 2.0})
    for _ in range(400):
        harness.rotation.request_started(harness.rotation.pick_now(()))
    counts = {status.address: status.outstanding for status in harness.rotation.statuses()}
    assert abs(counts[ONE] - 200) < 10
    assert abs(counts[TWO] - 100) < 10


def test_busiest_backend_is_never_picked() -> None:
    harness = RotationHarness(*ADDRESSES)
    for _ in range(3):
        harness.rotation.request_started(ONE)
    assert ONE not in harness.shares(200)


def test_slow_start_share_grows() -> None:
    harness = RotationHarness(ONE, TWO, THREE)
    harness.rotation.add(FOUR)
    shares = []
    for _ in range(4):
        shares.append(harness.shares()[FOUR])
        harness.now += 3.5
    assert shares == sorted(shares)
    assert shares[0] < 60
    assert shares[-1] > 200


def test_slow_start_limits_outstanding_requests_under_load() -> None:
    harness = RotationHarness(ONE)
    harness.rotation.add(TWO)
    for _ in range(110):
        harness.rotation.request_started(harness.rotation.pick_now(()))
    counts = {status.address: status.outstanding for status in harness.rotation.statuses()}
    assert 5 < counts[TWO] < 15


def test_sticky_backend_is_picked_while_usable() -> None:
    harness = RotationHarness(*ADDRESSES)
    assert {harness.rotation.pick_now((), TWO) for _ in range(20)} == {TWO}
    assert harness.rotation.pick_now({TWO}, TWO) != TWO
    assert harness.rotation.pick_now((), BackendAddress("192.0.2.1", 80)) in ADDRESSES
    harness.rotation.connect_failed(TWO)
    assert TWO not in {harness.rotation.pick_now((), TWO) for _ in range(20)}


# Health.


def test_unreachable_backend_is_ejected_at_once() -> None:
    harness = RotationHarness(*ADDRESSES)
    harness.rotation.connect_failed(ONE)
    assert ONE not in harness.shares()
    assert harness.warnings == [
        "backend ejected from rotation backend=127.0.0.1:1 reason=connecting to it failed"
    ]


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.TIMED_OUT])
def test_failed_or_timed_out_request_ejects_backend_at_once(outcome: Outcome) -> None:
    harness = RotationHarness(*ADDRESSES)
    harness.run_request(ONE, outcome)
    assert ONE not in harness.shares()


def test_five_consecutive_unavailable_responses_eject_backend() -> None:
    harness = RotationHarness(*ADDRESSES)
    for _ in range(3):
        for _ in range(4):
            harness.run_request(ONE, Outcome.UNAVAILABLE)
        harness.run_request(ONE, Outcome.ANSWERED)
    assert not harness.ejected()
    for _ in range(5):
        harness.run_request(ONE, Outcome.UNAVAILABLE)
    assert harness.ejected() == {ONE}


def test_client_disconnects_do_not_eject_backend() -> None:
    harness = RotationHarness(ONE, TWO)
    for _ in range(100):
        harness.run_request(ONE, Outcome.ABANDONED)
    assert not harness.ejected()


def test_successful_trial_request_ends_ejection() -> None:
    harness = RotationHarness(ONE, TWO, THREE)
    harness.rotation.connect_failed(ONE)
    harness.now += 1
    picked = [harness.rotation.pick_now(()) for _ in range(20)]
    assert picked.count(ONE) == 1
    harness.run_request(ONE, Outcome.ANSWERED)
    assert not harness.ejected()
    assert harness.warnings[-1] == "backend returned to rotation backend=127.0.0.1:1"


def test_retry_is_not_used_as_trial_request() -> None:
    harness = RotationHarness(ONE, TWO, THREE)
    harness.rotation.connect_failed(ONE)
    harness.now += 1
    assert {harness.rotation.pick_now({TWO}) for _ in range(20)} == {THREE}
    assert harness.rotation.pick_now(()) == ONE


def test_failed_trial_doubles_ejection() -> None:
    harness = RotationHarness(ONE, TWO, THREE)
    harness.rotation.connect_failed(ONE)
    trials = []
    for tenths in range(200):
        harness.now = 110 + tenths / 10
        if harness.rotation.pick_now(()) == ONE:
            trials.append(tenths / 10)
            harness.rotation.connect_failed(ONE)
    assert trials == pytest.approx([1, 3, 7, 15], abs=0.15)


def test_unfinished_trial_request_is_followed_by_another() -> None:
    harness = RotationHarness(ONE, TWO, THREE)
    harness.rotation.connect_failed(ONE)
    harness.now += 1
    assert harness.rotation.pick_now(()) == ONE
    harness.now += 2
    assert harness.rotation.pick_now(()) == ONE


def test_recovered_backend_gets_slow_start() -> None:
    harness = RotationHarness(ONE, TWO, THREE)
    harness.rotation.connect_failed(ONE)
    harness.now += 1
    assert harness.run_picked_request() == ONE
    assert harness.shares()[ONE] < 100


def test_response_to_earlier_request_does_not_end_ejection() -> None:
    harness = RotationHarness(ONE, TWO, THREE)
    for _ in range(2):
        harness.rotation.request_started(ONE)
    assert ONE in harness.in_use()
    harness.rotation.connect_failed(ONE)
    harness.rotation.request_ended(ONE, Outcome.ANSWERED)
    assert harness.ejected() == {ONE}
    harness.rotation.pick_now(())
    harness.rotation.request_ended(ONE, Outcome.ANSWERED)
    assert harness.ejected() == {ONE}


# Panic mode.


def test_panic_mode_ignores_ejections_when_more_than_half_are_ejected() -> None:
    harness = RotationHarness(ONE, TWO, THREE, FOUR)
    harness.run_request(ONE, Outcome.FAILED)
    harness.run_request(TWO, Outcome.FAILED)
    assert harness.in_use() == {THREE, FOUR}
    harness.run_request(THREE, Outcome.FAILED)
    assert harness.in_use() == {ONE, TWO, THREE, FOUR}
    assert harness.rotation.panicking
    assert harness.warnings[-1] == (
        "panic mode: too many backends are ejected, so all reachable ones are used"
        " cluster=web ejected=3 backends=4"
    )
    assert {harness.rotation.pick_now(()) for _ in range(100)} == {ONE, TWO, THREE, FOUR}
    harness.run_request(ONE, Outcome.ANSWERED)  # half are healthy: panic mode ends
    assert harness.in_use() == {ONE, FOUR}
    assert not harness.rotation.panicking


def test_panic_mode_prefers_reachable_backends() -> None:
    harness = RotationHarness(ONE, TWO, THREE)
    harness.rotation.connect_failed(ONE)
    harness.rotation.connect_failed(TWO)
    assert harness.in_use() == {THREE}
    harness.rotation.connect_failed(THREE)
    assert harness.in_use() == {ONE, TWO, THREE}


def test_only_backend_is_used_even_if_ejected() -> None:
    harness = RotationHarness(ONE)
    for outcome in (Outcome.FAILED, Outcome.TIMED_OUT, *[Outcome.UNAVAILABLE] * 9):
        harness.run_request(ONE, outcome)
        assert harness.rotation.pick_now(()) == ONE
    harness.rotation.connect_failed(ONE)
    assert harness.rotation.pick_now(()) == ONE


def test_retry_uses_ejected_backend_if_no_other_is_left() -> None:
    harness = RotationHarness(ONE, TWO, THREE)
    harness.rotation.connect_failed(ONE)
    assert harness.rotation.pick_now({TWO}) == THREE
    assert harness.rotation.pick_now({TWO, THREE}) == ONE
    with pytest.raises(AllBackendsTried, match="Cluster web has no other backend"):
        harness.rotation.pick_now({ONE, TWO, THREE})


# Active health checks.


def test_two_failed_checks_eject_and_one_passed_check_recovers() -> None:
    harness = RotationHarness(ONE, TWO, THREE)
    harness.rotation.check_failed(ONE, "status 500", reachable=True)
    assert not harness.ejected()
    harness.rotation.check_failed(ONE, "status 500", reachable=True)
    assert harness.ejected() == {ONE}
    assert harness.warnings == [
        "backend ejected from rotation backend=127.0.0.1:1 reason=health check failed: status 500"
    ]
    harness.now += 1000
    assert ONE not in harness.shares()  # no trial request: only a passed check ends this ejection
    harness.rotation.check_passed(ONE)
    assert not harness.ejected()


def test_only_consecutive_failed_checks_eject() -> None:
    harness = RotationHarness(ONE, TWO, THREE)
    for _ in range(3):
        harness.rotation.check_failed(ONE, "failed", reachable=True)
        harness.rotation.check_passed(ONE)
    assert not harness.ejected()


def test_passed_check_ends_ejection() -> None:
    harness = RotationHarness(ONE, TWO, THREE)
    harness.rotation.connect_failed(ONE)
    harness.rotation.check_passed(ONE)
    assert not harness.ejected()


def test_panic_mode_uses_all_when_all_checks_fail() -> None:
    harness = RotationHarness(ONE, TWO)
    for address in (ONE, TWO, ONE, TWO):
        harness.rotation.check_failed(address, "failed", reachable=True)
    assert set(harness.shares()) == {ONE, TWO}
    assert harness.ejected() == {ONE, TWO}


# Joining and leaving.


def test_idle_connections_are_closed_when_backend_departs() -> None:
    harness = RotationHarness(ONE, TWO)
    for address in (ONE, ONE, TWO):
        harness.rotation.request_started(address)
    harness.rotation.remove(ONE)
    harness.rotation.mark_departed(TWO)
    assert harness.departed == [ONE, TWO]
    for address in (ONE, TWO, ONE, ONE):
        harness.rotation.request_ended(address, Outcome.ANSWERED)
    assert harness.departed[2:] == [ONE, TWO, ONE, ONE]
    assert harness.run_picked_request() == TWO
    harness.departed.clear()
    harness.rotation.add(TWO)
    harness.run_picked_request()
    assert not harness.departed


def test_removed_backend_drains() -> None:
    harness = RotationHarness(ONE, TWO)
    for _ in range(2):
        harness.rotation.request_started(ONE)
    harness.rotation.connect_failed(ONE)
    harness.rotation.remove(ONE)
    assert len(harness.rotation) == 1
    assert ONE not in harness.rotation
    assert set(harness.shares(50)) == {TWO}
    harness.rotation.request_ended(ONE, Outcome.FAILED)
    harness.rotation.add(ONE)  # the same address, with a request still running
    assert {status.address: status.outstanding for status in harness.rotation.statuses()}[ONE] == 1
    assert not harness.ejected()  # health is reset
    harness.rotation.request_ended(ONE, Outcome.ANSWERED)
    harness.rotation.remove(ONE)
    harness.rotation.remove(ONE)
    harness.rotation.request_ended(ONE, Outcome.ANSWERED)
    assert len(harness.rotation) == 1


class RotationModel:
    """A rotation, and a model of which backends and requests it has."""

    def __init__(self) -> None:
        self.harness = RotationHarness()
        self.present: set[BackendAddress] = set()
        self.outstanding: Counter[BackendAddress] = Counter()

    def join(self, address: BackendAddress) -> None:
        self.harness.rotation.add(address, 1.0 + address.port)
        self.present.add(address)

    def leave(self, address: BackendAddress) -> None:
        self.harness.rotation.remove(address)
        self.present.discard(address)

    def start_request(self, address: BackendAddress) -> None:
        self.harness.rotation.request_started(address)
        if self.is_tracked(address):
            self.outstanding[address] += 1

    def is_tracked(self, address: BackendAddress) -> bool:
        return address in self.present or self.outstanding[address] > 0

    def end_request(self, address: BackendAddress, outcome: Outcome) -> None:
        self.harness.rotation.request_ended(address, outcome)
        self.outstanding[address] = max(0, self.outstanding[address] - 1)

    def check_invariants(self) -> None:
        rotation = self.harness.rotation
        statuses = rotation.statuses()
        assert {status.address for status in statuses} == self.present
        assert len(rotation) == len(self.present)
        for status in statuses:
            assert status.outstanding == self.outstanding[status.address]
        assert not self.present or any(status.in_use for status in statuses)
        tried: set[BackendAddress] = set()
        for _ in self.present:
            address = rotation.pick_now(tried)
            assert address in self.present - tried
            tried.add(address)
        with pytest.raises(ProxyError):
            rotation.pick_now(tried)


ADDRESS = st.sampled_from(ADDRESSES[:4])
STEP: st.SearchStrategy[Callable[[RotationModel], None]] = st.one_of(
    st.builds(lambda a: lambda model: model.join(a), ADDRESS),
    st.builds(lambda a: lambda model: model.leave(a), ADDRESS),
    st.builds(lambda a: lambda model: model.start_request(a), ADDRESS),
    st.builds(
        lambda a, o: lambda model: model.end_request(a, o), ADDRESS, st.sampled_from(Outcome)
    ),
    st.builds(lambda a: lambda model: model.harness.rotation.connect_failed(a), ADDRESS),
    st.builds(
        lambda a: lambda model: model.harness.rotation.check_failed(a, "failed", reachable=True),
        ADDRESS,
    ),
    st.builds(lambda a: lambda model: model.harness.rotation.check_passed(a), ADDRESS),
    st.builds(
        lambda s: lambda model: setattr(model.harness, "now", model.harness.now + s),
        st.floats(0, 100),
    ),
)


@given(st.lists(STEP, max_size=40))
def test_each_present_backend_and_no_other_is_picked(
    steps: list[Callable[[RotationModel], None]],
) -> None:
    model = RotationModel()
    for step in steps:
        step(model)
        model.check_invariants()
