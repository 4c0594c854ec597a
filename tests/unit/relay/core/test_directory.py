"""The directory: announcements, snapshots for new peers, watchers, and removal of endpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arke.wire.messages import PeerOp
from arke_relay.core import directory as module
from arke_relay.core.directory import Directory, Metadata, Watchers, member_id_of
from arke_relay.core.endpoints import Endpoint, Message, Peer, Program
from support.recording_sink import RecordingSink

JOINED, LEFT = PeerOp.MEMBER_JOINED.value, PeerOp.MEMBER_LEFT.value
SUBSCRIBED, UNSUBSCRIBED = PeerOp.SUBSCRIBED.value, PeerOp.UNSUBSCRIBED.value
SYNCED = (PeerOp.SYNCED.value,)


@dataclass
class DirectoryHarness:
    """A directory, its endpoints, and what it announced."""

    announced: list[Message] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.directory = Directory(self.announced.append, self._watched)
        self.programs = [Program(number, "p", "me", RecordingSink()) for number in range(1, 4)]
        self.peers = [Peer(node, RecordingSink(), "10.9.8.7") for node in ("one", "other")]
        self.endpoints: list[Endpoint] = [*self.programs, *self.peers]
        self.seen: dict[str, set[str]] = {}
        """The members as a watcher of every cluster knows them."""
        for cluster in ("a", "b"):
            self.seen[cluster] = set()
            self.directory.watch(cluster, self.programs[0])

    def _watched(
        self,
        watchers: Watchers,
        cluster: str,
        endpoint: Endpoint,
        member: str,
        metadata: Metadata | None,
    ) -> None:
        assert member.startswith(f"{endpoint.node}/")
        if metadata is None:
            self.seen[cluster].remove(member)
        else:
            assert member not in self.seen[cluster]
            self.seen[cluster].add(member)

    def join(self, endpoint: Endpoint, cluster: str, member: int) -> None:
        """Add a member as the core does for programs, or as a batch does for peers."""
        if isinstance(endpoint, Program):
            if endpoint.cluster is None:
                endpoint.cluster = cluster
                self.directory.join(cluster, endpoint, endpoint.id, {})
        else:
            self.directory.join(cluster, endpoint, member, {})

    def leave(self, endpoint: Endpoint, cluster: str, member: int) -> None:
        if isinstance(endpoint, Program):
            if endpoint.cluster is not None:
                self.directory.leave(endpoint.cluster, endpoint, endpoint.id)
                endpoint.cluster = None
        else:
            self.directory.leave(cluster, endpoint, member)

    def subscribe(self, endpoint: Endpoint, topic: str) -> None:
        if isinstance(endpoint, Program):
            endpoint.topics[topic] = None
        self.directory.subscribe(topic, endpoint)

    def unsubscribe(self, endpoint: Endpoint, topic: str) -> None:
        if isinstance(endpoint, Program):
            endpoint.topics.pop(topic, None)
        self.directory.unsubscribe(topic, endpoint)

    def remove(self, endpoint: Endpoint) -> None:
        if isinstance(endpoint, Program):
            self.directory.remove_program(endpoint)
        else:
            assert isinstance(endpoint, Peer)
            self.directory.remove_peer(endpoint)


NAMES = st.sampled_from(["a", "b"])
ENDPOINT_NUMBERS = st.integers(0, 4)
STEPS = st.lists(
    st.tuples(st.just("join"), ENDPOINT_NUMBERS, NAMES, st.integers(1, 3))
    | st.tuples(st.just("leave"), ENDPOINT_NUMBERS, NAMES, st.integers(1, 3))
    | st.tuples(st.just("subscribe"), ENDPOINT_NUMBERS, NAMES)
    | st.tuples(st.just("unsubscribe"), ENDPOINT_NUMBERS, NAMES)
    | st.tuples(st.just("remove"), ENDPOINT_NUMBERS),
    max_size=40,
)


def play(
    steps: list[tuple[object, ...]], each: Callable[[DirectoryHarness], None]
) -> DirectoryHarness:
    harness = DirectoryHarness()
    for action, number, *rest in steps:
        getattr(harness, str(action))(harness.endpoints[int(str(number))], *rest)
        each(harness)
    return harness


def replay(messages: list[Message]) -> tuple[set[Message], set[Message]]:
    """Return the (cluster, member) pairs and the topics that these announcements add up to."""
    members: set[Message] = set()
    topics: set[Message] = set()
    for op, *fields in messages:
        known = members if op in {JOINED, LEFT} else topics
        entry = tuple(fields[:2] if known is members else fields)
        if op in {JOINED, SUBSCRIBED}:
            assert entry not in known, "announced twice"
            known.add(entry)
        else:
            assert entry in known, "removed before it was announced"
            known.remove(entry)
    return members, topics


@given(STEPS)
def test_snapshot_equals_the_sum_of_announcements(steps: list[tuple[object, ...]]) -> None:
    def agrees(harness: DirectoryHarness) -> None:
        *snapshot, last = harness.directory.snapshot()
        assert last == SYNCED
        assert replay(snapshot) == replay(harness.announced)
        assert replay(snapshot) == (
            {(p.cluster, p.id) for p in harness.programs if p.cluster is not None},
            {(topic,) for p in harness.programs for topic in p.topics},
        )

    play(steps, agrees)


@given(STEPS)
def test_every_member_has_one_draw(steps: list[tuple[object, ...]]) -> None:
    def whole(harness: DirectoryHarness) -> None:
        for cluster in harness.directory.clusters.values():
            assert cluster.candidates
            for endpoint, candidate in cluster.candidates.items():
                assert candidate.endpoint is endpoint
                assert cluster.draws.count(candidate) == len(candidate.members) > 0
                assert cluster.here.count(candidate) == (not endpoint.is_peer)
            assert len(cluster.draws) == sum(len(c.members) for c in cluster.candidates.values())
            assert len(cluster.here) == sum(not p.is_peer for p in cluster.candidates)
        assert all(harness.directory.topics.values())

    play(steps, whole)


@given(STEPS)
def test_watchers_know_every_member(steps: list[tuple[object, ...]]) -> None:
    def seen(harness: DirectoryHarness) -> None:
        for name in ("a", "b"):
            cluster = harness.directory.clusters.get(name)
            there = {
                member_id_of(endpoint, member)
                for endpoint, candidate in (cluster.candidates if cluster else {}).items()
                for member in candidate.members
            }
            assert harness.seen[name] == there

    play([step for step in steps if step[:2] != ("remove", 0)], seen)


@given(STEPS)
def test_directory_is_empty_after_all_endpoints_are_removed(
    steps: list[tuple[object, ...]],
) -> None:
    harness = play(steps, lambda _: None)
    for endpoint in harness.endpoints:
        harness.remove(endpoint)
    assert harness.directory.clusters == {}
    assert harness.directory.topics == {}
    assert harness.directory._peer_entries == {}
    assert replay(harness.announced) == (set(), set())


def test_members_of_peers_are_not_announced() -> None:
    harness = DirectoryHarness()
    peer = harness.peers[0]
    harness.join(peer, "a", 1)
    harness.subscribe(peer, "t")
    harness.unsubscribe(peer, "t")
    harness.leave(peer, "a", 1)
    harness.remove(peer)
    assert harness.announced == []


def test_topic_is_announced_for_the_first_and_last_local_subscriber() -> None:
    harness = DirectoryHarness()
    one, other, _ = harness.programs
    harness.subscribe(harness.peers[0], "t")
    harness.subscribe(one, "t")
    harness.subscribe(other, "t")
    harness.unsubscribe(one, "t")
    harness.unsubscribe(other, "t")
    assert harness.announced == [(SUBSCRIBED, "t"), (UNSUBSCRIBED, "t")]


def test_retired_peer_gets_no_requests_but_still_gets_events() -> None:
    harness = DirectoryHarness()
    peer = harness.peers[0]
    harness.join(peer, "a", 1)
    harness.join(peer, "b", 2)
    harness.join(harness.programs[0], "b", 0)
    harness.subscribe(peer, "t")
    harness.directory.remove_members_of(peer)
    assert set(harness.directory.clusters) == {"b"}
    assert peer not in harness.directory.clusters["b"].candidates
    assert peer in harness.directory.topics["t"]


@pytest.mark.parametrize("bound", [3])
def test_announcements_of_a_peer_are_bounded(bound: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENTRIES", bound)
    harness = DirectoryHarness()
    peer, other = harness.peers
    directory = harness.directory
    assert directory.join("a", peer, 1, {})
    assert directory.join("a", peer, 1, {}), "a repeated announcement does not count"
    assert directory.join("a", peer, 2, {})
    assert directory.subscribe("t", peer)
    assert directory.subscribe("t", peer)
    assert not directory.join("b", peer, 3, {})
    assert not directory.subscribe("u", peer)
    assert set(directory.clusters) == {"a"}
    assert set(directory.topics) == {"t"}
    assert directory.join("b", other, 3, {})
    directory.leave("a", peer, 1)
    directory.leave("a", peer, 1)
    directory.unsubscribe("nothing", peer)
    assert directory.join("b", peer, 3, {})
    assert not directory.join("b", peer, 4, {})


def test_removal_of_an_unknown_member_is_ignored() -> None:
    harness = DirectoryHarness()
    peer, other = harness.peers
    harness.join(peer, "a", 1)
    for cluster, member in (("a", 2), ("b", 1)):
        harness.directory.leave(cluster, peer, member)
    harness.directory.leave("a", other, 1)
    harness.directory.unsubscribe("a", other)
    assert [c.endpoint for c in harness.directory.clusters["a"].draws] == [peer]
