"""What is announced, what a newcomer is told, and what is left of those who went."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arke.wire.messages import PeerOp
from arke_relay.core import directory as module
from arke_relay.core.directory import Directory, Metadata, Watchers, member_of
from arke_relay.core.endpoints import Endpoint, Message, Peer, Program
from support.recording_sink import RecordingSink

JOINED, LEFT = PeerOp.MEMBER_JOINED.value, PeerOp.MEMBER_LEFT.value
SUBSCRIBED, UNSUBSCRIBED = PeerOp.SUBSCRIBED.value, PeerOp.UNSUBSCRIBED.value
SYNCED = (PeerOp.SYNCED.value,)


@dataclass
class Place:
    """A directory, its endpoints, and what it announced."""

    announced: list[Message] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.directory = Directory(self.announced.append, self._watched)
        self.programs = [Program(number, "p", "me", RecordingSink()) for number in range(1, 4)]
        self.peers = [Peer(node, RecordingSink(), "10.9.8.7") for node in ("one", "other")]
        self.endpoints: list[Endpoint] = [*self.programs, *self.peers]
        self.seen: dict[str, set[str]] = {}
        """What somebody believes who watches every cluster since before anybody was there."""
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
        """As the core and the batches do it."""
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

    def forget(self, endpoint: Endpoint) -> None:
        if isinstance(endpoint, Program):
            self.directory.remove_program(endpoint)
        else:
            assert isinstance(endpoint, Peer)
            self.directory.remove_peer(endpoint)


NAMES = st.sampled_from(["a", "b"])
WHO = st.integers(0, 4)
STEPS = st.lists(
    st.tuples(st.just("join"), WHO, NAMES, st.integers(1, 3))
    | st.tuples(st.just("leave"), WHO, NAMES, st.integers(1, 3))
    | st.tuples(st.just("subscribe"), WHO, NAMES)
    | st.tuples(st.just("unsubscribe"), WHO, NAMES)
    | st.tuples(st.just("forget"), WHO),
    max_size=40,
)


def play(steps: list[tuple[object, ...]], each: Callable[[Place], None]) -> Place:
    place = Place()
    for what, who, *rest in steps:
        getattr(place, str(what))(place.endpoints[int(str(who))], *rest)
        each(place)
    return place


def told(messages: list[Message]) -> tuple[set[Message], set[Message]]:
    """What somebody who hears these believes: (cluster, member) pairs, and topics."""
    members: set[Message] = set()
    topics: set[Message] = set()
    for op, *fields in messages:
        known = members if op in {JOINED, LEFT} else topics
        what = tuple(fields[:2] if known is members else fields)
        if op in {JOINED, SUBSCRIBED}:
            assert what not in known, "announced twice"
            known.add(what)
        else:
            assert what in known, "taken back before it was announced"
            known.remove(what)
    return members, topics


@given(STEPS)
def test_a_newcomer_is_told_the_sum_of_what_was_announced(steps: list[tuple[object, ...]]) -> None:
    def agrees(place: Place) -> None:
        *snapshot, last = place.directory.snapshot()
        assert last == SYNCED
        assert told(snapshot) == told(place.announced)
        assert told(snapshot) == (
            {(p.cluster, p.id) for p in place.programs if p.cluster is not None},
            {(topic,) for p in place.programs for topic in p.topics},
        )

    play(steps, agrees)


@given(STEPS)
def test_every_member_is_drawn_once(steps: list[tuple[object, ...]]) -> None:
    def whole(place: Place) -> None:
        for cluster in place.directory.clusters.values():
            assert cluster.candidates
            for endpoint, candidate in cluster.candidates.items():
                assert candidate.endpoint is endpoint
                assert cluster.draws.count(candidate) == len(candidate.members) > 0
                assert cluster.here.count(candidate) == (not endpoint.is_peer)
            assert len(cluster.draws) == sum(len(c.members) for c in cluster.candidates.values())
            assert len(cluster.here) == sum(not p.is_peer for p in cluster.candidates)
        assert all(place.directory.topics.values())

    play(steps, whole)


@given(STEPS)
def test_who_watches_knows_every_member(steps: list[tuple[object, ...]]) -> None:
    def seen(place: Place) -> None:
        for name in ("a", "b"):
            cluster = place.directory.clusters.get(name)
            there = {
                member_of(endpoint, member)
                for endpoint, candidate in (cluster.candidates if cluster else {}).items()
                for member in candidate.members
            }
            assert place.seen[name] == there

    play([step for step in steps if step[:2] != ("forget", 0)], seen)


@given(STEPS)
def test_when_all_are_forgotten_nothing_is_left(steps: list[tuple[object, ...]]) -> None:
    place = play(steps, lambda _: None)
    for endpoint in place.endpoints:
        place.forget(endpoint)
    assert place.directory.clusters == {}
    assert place.directory.topics == {}
    assert place.directory._peer_entries == {}
    assert told(place.announced) == (set(), set())


def test_peers_are_announced_to_nobody() -> None:
    place = Place()
    peer = place.peers[0]
    place.join(peer, "a", 1)
    place.subscribe(peer, "t")
    place.unsubscribe(peer, "t")
    place.leave(peer, "a", 1)
    place.forget(peer)
    assert place.announced == []


def test_a_topic_is_announced_for_the_first_and_the_last_listener_here() -> None:
    place = Place()
    one, other, _ = place.programs
    place.subscribe(place.peers[0], "t")
    place.subscribe(one, "t")
    place.subscribe(other, "t")
    place.unsubscribe(one, "t")
    place.unsubscribe(other, "t")
    assert place.announced == [(SUBSCRIBED, "t"), (UNSUBSCRIBED, "t")]


def test_a_retired_peer_takes_nothing_new_but_still_listens() -> None:
    place = Place()
    peer = place.peers[0]
    place.join(peer, "a", 1)
    place.join(peer, "b", 2)
    place.join(place.programs[0], "b", 0)
    place.subscribe(peer, "t")
    place.directory.remove_members_of(peer)
    assert set(place.directory.clusters) == {"b"}
    assert peer not in place.directory.clusters["b"].candidates
    assert peer in place.directory.topics["t"]


@pytest.mark.parametrize("bound", [3])
def test_a_peer_announces_so_much_and_no_more(bound: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENTRIES", bound)
    place = Place()
    peer, other = place.peers
    directory = place.directory
    assert directory.join("a", peer, 1, {})
    assert directory.join("a", peer, 1, {}), "the same again is not more"
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


def test_what_nobody_announced_cannot_be_taken_back() -> None:
    place = Place()
    peer, other = place.peers
    place.join(peer, "a", 1)
    for cluster, member in (("a", 2), ("b", 1)):
        place.directory.leave(cluster, peer, member)
    place.directory.leave("a", other, 1)
    place.directory.unsubscribe("a", other)
    assert [c.endpoint for c in place.directory.clusters["a"].draws] == [peer]
