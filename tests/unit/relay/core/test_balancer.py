"""The balancer: which candidate gets the next request."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from arke_relay.core.balancer import FAULT, HALF_LIFE, REFUSAL, PowerOfTwoBalancer
from arke_relay.core.directory import Candidate, Cluster
from arke_relay.core.endpoints import Peer, Program
from support.recording_sink import RecordingSink

DRAWS = 20_000


def program(number: int) -> Program:
    return Program(number, "p", "me", RecordingSink())


def cluster_of(*members: int) -> Cluster:
    """A cluster of candidates with these numbers of members: 1 is a program, more are a peer."""
    cluster = Cluster("c")
    for number, count in enumerate(members):
        endpoint = (
            program(number) if count == 1 else Peer(f"node{number}", RecordingSink(), "10.9.8.7")
        )
        candidate = Candidate("c", endpoint)
        for member in range(count):
            cluster.add(candidate, member, {})
    return cluster


def shares(cluster: Cluster, now: float = 0.0, *, working: bool = False) -> list[float]:
    """Return each candidate's share of the choices. With `working` no request ends meanwhile."""
    balancer = PowerOfTwoBalancer(Random(7).random)
    chosen: Counter[Candidate] = Counter()
    for _ in range(DRAWS):
        candidate = balancer.choose(cluster.draws, (), now)
        assert candidate is not None
        chosen[candidate] += 1
        candidate.outstanding += working
    return [chosen[candidate] / DRAWS for candidate in cluster.candidates.values()]


def test_empty_cluster_has_no_choice() -> None:
    assert PowerOfTwoBalancer(Random(1).random).choose([], (), 0.0) is None


def test_only_candidate_is_always_chosen() -> None:
    cluster = cluster_of(1)
    only = cluster.draws[0]
    only.outstanding = 1000
    balancer = PowerOfTwoBalancer(Random(1).random)
    balancer.penalise(only, REFUSAL, 0.0)
    assert balancer.choose(cluster.draws, (), 0.0) is only


@pytest.mark.parametrize("count", [2, 3, 7])
def test_idle_members_get_equal_shares(count: int) -> None:
    assert shares(cluster_of(*[1] * count)) == pytest.approx([1 / count] * count, abs=0.02)


def test_idle_nodes_get_shares_by_their_members() -> None:
    assert shares(cluster_of(1, 2, 5)) == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.02)


def test_outstanding_requests_are_shared_by_members() -> None:
    """No request ends: each member, not each node, gets the same number."""
    assert shares(cluster_of(1, 2, 5), working=True) == pytest.approx(
        [1 / 8, 2 / 8, 5 / 8], abs=0.005
    )


def test_candidate_with_fewer_outstanding_requests_is_chosen() -> None:
    cluster = cluster_of(1, 1)
    busy, free = cluster.draws
    busy.outstanding = 2
    free.outstanding = 1
    assert shares(cluster) == [0, 1]


def test_outstanding_requests_are_divided_by_members() -> None:
    cluster = cluster_of(1, 4)
    here, there = cluster.candidates.values()
    here.outstanding = 2
    there.outstanding = 4
    assert shares(cluster)[1] > 0.99
    there.outstanding = 12
    # Both draws hit the peer in 3 of 5 cases; in the other 2 the program is chosen.
    assert shares(cluster)[0] == pytest.approx(2 * (1 / 5), abs=0.02)


def test_busiest_candidate_is_never_chosen() -> None:
    cluster = cluster_of(*[1] * 5)
    cluster.draws[0].outstanding = 1
    assert shares(cluster)[0] == 0


def test_tried_candidates_are_excluded() -> None:
    cluster = cluster_of(1, 1, 3)
    balancer = PowerOfTwoBalancer(Random(1).random)
    endpoints = list(cluster.candidates)
    tried: set[object] = set()
    for _ in endpoints:
        found = {balancer.choose(cluster.draws, tried, 0.0) for _ in range(100)}  # type: ignore[arg-type]
        assert {c.endpoint for c in found if c} == set(endpoints) - tried
        tried.add(endpoints[len(tried)])
    assert balancer.choose(cluster.draws, tried, 0.0) is None  # type: ignore[arg-type]


def test_failed_candidate_gets_less_until_the_penalty_decays() -> None:
    cluster = cluster_of(1, 1)
    failed, _ = cluster.draws
    PowerOfTwoBalancer(Random(1).random).penalise(failed, FAULT, 100.0)
    assert shares(cluster, 100.0) == [0, 1]
    assert shares(cluster, 100.0 + 3 * HALF_LIFE) == [0, 1]
    assert shares(cluster, 100.0 + 4 * HALF_LIFE) == pytest.approx([0.5, 0.5], abs=0.02)


def test_penalty_counts_like_requests_and_halves_each_half_life() -> None:
    cluster = cluster_of(1, 1)
    refused, busy = cluster.draws
    PowerOfTwoBalancer(Random(1).random).penalise(refused, REFUSAL, 0.0)
    busy.outstanding = 3
    assert shares(cluster, 0.4 * HALF_LIFE) == [0, 1]
    assert shares(cluster, 0.5 * HALF_LIFE) == [1, 0]


def test_penalties_add_up_to_a_limit() -> None:
    cluster = cluster_of(1, 1)
    refused, _ = cluster.draws
    balancer = PowerOfTwoBalancer(Random(1).random)
    for _ in range(1000):
        balancer.penalise(refused, REFUSAL, 0.0)
    assert shares(cluster, 9 * HALF_LIFE) == [0, 1]
    assert shares(cluster, 10 * HALF_LIFE) == pytest.approx([0.5, 0.5], abs=0.02)


def test_equal_penalties_leave_only_outstanding_requests() -> None:
    cluster = cluster_of(1, 1)
    one, other = cluster.draws
    balancer = PowerOfTwoBalancer(Random(1).random)
    balancer.penalise(one, REFUSAL, 0.0)
    balancer.penalise(other, FAULT, 0.0)
    assert shares(cluster, 0.1) == pytest.approx([0.5, 0.5], abs=0.02)
    other.outstanding = 1
    assert shares(cluster, 0.1) == [1, 0]


def test_candidates_without_penalty_are_preferred() -> None:
    """Also if both drawn candidates have a penalty."""
    cluster = cluster_of(*[1] * 8)
    balancer = PowerOfTwoBalancer(Random(1).random)
    for failed in cluster.draws[:-1]:
        balancer.penalise(failed, FAULT, 0.0)
    assert shares(cluster, 0.1)[:-1] == [0] * 7
    cluster.draws[-1].outstanding = 1
    assert shares(cluster, 0.1)[-1] > 0.7, "a busy candidate is compared by load with a failed one"


def test_choice_depends_only_on_the_random_source() -> None:
    def choices() -> list[object]:
        cluster = cluster_of(1, 1, 2, 3)
        balancer = PowerOfTwoBalancer(Random(42).random)
        return [
            list(cluster.candidates.values()).index(candidate)
            for candidate in (balancer.choose(cluster.draws, (), 0.0) for _ in range(50))
            if candidate
        ]

    assert choices() == choices()


@pytest.mark.parametrize("value", [0.0, 1 - 2**-53])
def test_smallest_and_largest_random_values_choose_a_member(value: float) -> None:
    cluster = cluster_of(1, 1, 1)
    assert PowerOfTwoBalancer(lambda: value).choose(cluster.draws, (), 0.0) in cluster.draws
