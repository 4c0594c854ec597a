"""Who serves what, and where: members of clusters and subscribers of topics, here and at peers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from arke.wire.messages import PeerOp
from arke_relay.core.parties import Message, Party, Peer, Program

MAX_ENTRIES = 65_536
"""Members and topics one peer may announce: beyond any honest node, within any relay's memory."""


class Candidate:
    """A possible taker of a cluster's requests: a member here, or a peer with its members."""

    __slots__ = (
        "answered",
        "cluster",
        "members",
        "outstanding",
        "party",
        "penalised_at",
        "penalty",
    )

    def __init__(self, cluster: str, party: Party) -> None:
        self.cluster = cluster
        self.party = party
        self.members: set[int] = set()
        self.outstanding = 0
        self.penalty = 0.0
        self.penalised_at = 0.0
        self.answered = 0


class Cluster:
    """All candidates of one name."""

    __slots__ = ("candidates", "draws", "here", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.candidates: dict[Party, Candidate] = {}
        self.draws: list[Candidate] = []
        """Each candidate as often as it has members: one draw is one member."""
        self.here: list[Candidate] = []
        """The members at this node alone."""

    def add(self, candidate: Candidate, member: int) -> None:
        self.candidates[candidate.party] = candidate
        candidate.members.add(member)
        self.draws.append(candidate)
        if not candidate.party.is_peer:
            self.here.append(candidate)

    def redraw(self) -> None:
        self.draws = [c for c in self.candidates.values() for _ in c.members]
        self.here = [c for c in self.draws if not c.party.is_peer]


class Directory:
    """`announce` is called with every change that concerns this node's own programs."""

    def __init__(self, announce: Callable[[Message], None]) -> None:
        self._announce = announce
        self._peer_entries: dict[Peer, int] = {}
        self.clusters: dict[str, Cluster] = {}
        self.topics: dict[str, dict[Party, None]] = {}

    # Clusters.

    def join(self, name: str, party: Party, member: int) -> bool:
        """A member arrived. False: the peer announced more than is borne."""
        cluster = self.clusters.get(name)
        candidate = cluster.candidates.get(party) if cluster else None
        if candidate is not None and member in candidate.members:
            return True
        if isinstance(party, Peer) and not self._count(party, 1):
            return False
        if cluster is None:
            cluster = self.clusters[name] = Cluster(name)
        cluster.add(candidate or Candidate(name, party), member)
        if not party.is_peer:
            self._announce((PeerOp.JOINED.value, name, member))
        return True

    def leave(self, name: str, party: Party, member: int) -> None:
        cluster = self.clusters.get(name)
        candidate = cluster.candidates.get(party) if cluster else None
        if cluster is None or candidate is None or member not in candidate.members:
            return
        candidate.members.discard(member)
        if not candidate.members:
            del cluster.candidates[party]
        cluster.redraw()
        if not cluster.candidates:
            del self.clusters[name]
        if isinstance(party, Peer):
            self._count(party, -1)
        else:
            self._announce((PeerOp.LEFT.value, name, member))

    # Topics.

    def subscribe(self, topic: str, party: Party) -> bool:
        parties = self.topics.get(topic, {})
        if party in parties:
            return True
        if isinstance(party, Peer) and not self._count(party, 1):
            return False
        self.topics[topic] = parties
        first = not party.is_peer and all(other.is_peer for other in parties)
        parties[party] = None
        if first:
            self._announce((PeerOp.SUBSCRIBED.value, topic))
        return True

    def unsubscribe(self, topic: str, party: Party) -> None:
        parties = self.topics.get(topic)
        if parties is None or party not in parties:
            return
        del parties[party]
        if not parties:
            del self.topics[topic]
        if isinstance(party, Peer):
            self._count(party, -1)
        elif all(other.is_peer for other in parties):
            self._announce((PeerOp.UNSUBSCRIBED.value, topic))

    # Parties.

    def forget_program(self, program: Program) -> None:
        if program.cluster is not None:
            self.leave(program.cluster, program, program.id)
            program.cluster = None
        for topic in list(program.topics):
            self.unsubscribe(topic, program)
        program.topics.clear()

    def retire_peer(self, peer: Peer) -> None:
        """The peer's members take nothing new; its topics stay until it is gone."""
        for cluster in list(self.clusters.values()):
            if cluster.candidates.pop(peer, None):
                cluster.redraw()
                if not cluster.candidates:
                    del self.clusters[cluster.name]

    def forget_peer(self, peer: Peer) -> None:
        self.retire_peer(peer)
        for topic, parties in list(self.topics.items()):
            parties.pop(peer, None)
            if not parties:
                del self.topics[topic]
        self._peer_entries.pop(peer, None)

    def snapshot(self) -> Iterator[Message]:
        """What a new peer must be told of this node, ending with SYNCED."""
        for cluster in self.clusters.values():
            for candidate in cluster.candidates.values():
                if not candidate.party.is_peer:
                    for member in candidate.members:
                        yield (PeerOp.JOINED.value, cluster.name, member)
        for topic, parties in self.topics.items():
            if any(not party.is_peer for party in parties):
                yield (PeerOp.SUBSCRIBED.value, topic)
        yield (PeerOp.SYNCED.value,)

    def _count(self, peer: Peer, change: int) -> bool:
        entries = self._peer_entries.get(peer, 0) + change
        if entries > MAX_ENTRIES:
            return False
        self._peer_entries[peer] = entries
        return True
