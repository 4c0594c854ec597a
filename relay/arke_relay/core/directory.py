"""Members of clusters and subscribers of topics, at this node and at peers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from arke.wire.messages import PeerOp
from arke_relay.core.endpoints import Endpoint, Message, Peer, Program

MAX_ENTRIES = 65_536
"""Members and topics that one peer may announce: far more than a correct node has."""

Metadata = Mapping[str, str]
"""What a member published about itself when it registered."""

Watchers = dict[Program, None]

OnMemberChange = Callable[[Watchers, str, Endpoint, str, Metadata | None], None]
"""Watchers, cluster, endpoint, member id, metadata; None as metadata: the member left."""


class Candidate:
    """A possible assignee of a cluster's requests: a local member, or a peer with its members."""

    __slots__ = (
        "answered",
        "cluster",
        "endpoint",
        "members",
        "outstanding",
        "penalised_at",
        "penalty",
    )

    def __init__(self, cluster: str, endpoint: Endpoint) -> None:
        self.cluster = cluster
        self.endpoint = endpoint
        self.members: dict[int, Metadata] = {}
        """By their numbers at their node."""
        self.outstanding = 0
        """Requests that this relay has assigned to it and that have not ended."""
        self.penalty = 0.0
        self.penalised_at = 0.0
        self.answered = 0
        """Requests that ended with its reply."""


class Cluster:
    """All candidates of one name."""

    __slots__ = ("candidates", "draws", "here", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.candidates: dict[Endpoint, Candidate] = {}
        self.draws: list[Candidate] = []
        """Each candidate once per member, so that a random draw weighs nodes by members."""
        self.here: list[Candidate] = []
        """The members at this node only."""

    def add(self, candidate: Candidate, member: int, metadata: Metadata) -> None:
        self.candidates[candidate.endpoint] = candidate
        candidate.members[member] = metadata
        self.draws.append(candidate)
        if not candidate.endpoint.is_peer:
            self.here.append(candidate)

    def redraw(self) -> None:
        """Rebuild both lists after a member has left."""
        self.draws = [c for c in self.candidates.values() for _ in c.members]
        self.here = [c for c in self.draws if not c.endpoint.is_peer]


class Directory:
    """`announce` sends a change of this node's members or topics to all peers.

    `on_member_change` is called when a member of a watched cluster joins or leaves.
    """

    def __init__(
        self, announce: Callable[[Message], None], on_member_change: OnMemberChange
    ) -> None:
        self._announce = announce
        self._on_member_change = on_member_change
        self._peer_entries: dict[Peer, int] = {}
        self.clusters: dict[str, Cluster] = {}
        """Those that have members."""
        self.topics: dict[str, dict[Endpoint, None]] = {}
        """Subscribers by topic."""
        self.members: dict[str, Candidate] = {}
        """The candidate of each member id (`NODE/NUMBER`)."""
        self.watchers: dict[str, Watchers] = {}
        """Programs that watch a cluster's members, by its name."""

    # Clusters.

    def join(self, name: str, endpoint: Endpoint, member: int, metadata: Metadata) -> bool:
        """Add a member. False: the peer has announced too many entries."""
        cluster = self.clusters.get(name)
        candidate = cluster.candidates.get(endpoint) if cluster else None
        if candidate is not None and member in candidate.members:
            return True
        if isinstance(endpoint, Peer) and not self._count(endpoint, 1):
            return False
        if cluster is None:
            cluster = self.clusters[name] = Cluster(name)
        candidate = candidate or Candidate(name, endpoint)
        cluster.add(candidate, member, metadata)
        member_id = member_id_of(endpoint, member)
        self.members[member_id] = candidate
        if not endpoint.is_peer:
            self._announce((PeerOp.MEMBER_JOINED.value, name, member, metadata))
        if name in self.watchers:
            self._on_member_change(self.watchers[name], name, endpoint, member_id, metadata)
        return True

    def leave(self, name: str, endpoint: Endpoint, member: int) -> None:
        """Remove a member, if it is there."""
        cluster = self.clusters.get(name)
        candidate = cluster.candidates.get(endpoint) if cluster else None
        if cluster is None or candidate is None or member not in candidate.members:
            return
        del candidate.members[member]
        if not candidate.members:
            del cluster.candidates[endpoint]
        self._members_removed(cluster, candidate, (member,))
        if isinstance(endpoint, Peer):
            self._count(endpoint, -1)
        else:
            self._announce((PeerOp.MEMBER_LEFT.value, name, member))

    def _members_removed(
        self, cluster: Cluster, candidate: Candidate, members: Iterable[int]
    ) -> None:
        endpoint = candidate.endpoint
        cluster.redraw()
        if not cluster.candidates:
            del self.clusters[cluster.name]
        for member in members:
            member_id = member_id_of(endpoint, member)
            if self.members.get(member_id) is candidate:
                del self.members[member_id]
            watchers = self.watchers.get(cluster.name)
            if watchers is not None:
                self._on_member_change(watchers, cluster.name, endpoint, member_id, None)

    def watch(self, name: str, program: Program) -> None:
        self.watchers.setdefault(name, {})[program] = None

    def unwatch(self, name: str, program: Program) -> None:
        watchers = self.watchers.get(name)
        if watchers is not None and watchers.pop(program, True) is None and not watchers:
            del self.watchers[name]

    # Topics.

    def subscribe(self, topic: str, endpoint: Endpoint) -> bool:
        """Add a subscriber. False: the peer has announced too many entries."""
        endpoints = self.topics.get(topic, {})
        if endpoint in endpoints:
            return True
        if isinstance(endpoint, Peer) and not self._count(endpoint, 1):
            return False
        self.topics[topic] = endpoints
        first = not endpoint.is_peer and all(other.is_peer for other in endpoints)
        endpoints[endpoint] = None
        if first:
            self._announce((PeerOp.SUBSCRIBED.value, topic))
        return True

    def unsubscribe(self, topic: str, endpoint: Endpoint) -> None:
        endpoints = self.topics.get(topic)
        if endpoints is None or endpoint not in endpoints:
            return
        del endpoints[endpoint]
        if not endpoints:
            del self.topics[topic]
        if isinstance(endpoint, Peer):
            self._count(endpoint, -1)
        elif all(other.is_peer for other in endpoints):
            self._announce((PeerOp.UNSUBSCRIBED.value, topic))

    # Endpoints.

    def remove_program(self, program: Program) -> None:
        """Remove everything of a program that disconnected."""
        if program.cluster is not None:
            self.leave(program.cluster, program, program.id)
            program.cluster = None
        for topic in list(program.topics):
            self.unsubscribe(topic, program)
        program.topics.clear()
        for name in program.watches:
            self.unwatch(name, program)
        program.watches.clear()

    def remove_members_of(self, peer: Peer) -> None:
        """Remove the members of a draining peer; its subscriptions stay."""
        for cluster in list(self.clusters.values()):
            candidate = cluster.candidates.pop(peer, None)
            if candidate is not None:
                self._members_removed(cluster, candidate, candidate.members)

    def remove_peer(self, peer: Peer) -> None:
        """Remove everything of a peer that was lost."""
        self.remove_members_of(peer)
        for topic, endpoints in list(self.topics.items()):
            endpoints.pop(peer, None)
            if not endpoints:
                del self.topics[topic]
        self._peer_entries.pop(peer, None)

    def snapshot(self) -> Iterator[Message]:
        """Yield this node's members and topics for a new peer, ending with SYNCED."""
        for cluster in self.clusters.values():
            for candidate in cluster.candidates.values():
                if not candidate.endpoint.is_peer:
                    for member, metadata in candidate.members.items():
                        yield (PeerOp.MEMBER_JOINED.value, cluster.name, member, metadata)
        for topic, endpoints in self.topics.items():
            if any(not endpoint.is_peer for endpoint in endpoints):
                yield (PeerOp.SUBSCRIBED.value, topic)
        yield (PeerOp.SYNCED.value,)

    def _count(self, peer: Peer, change: int) -> bool:
        """Change the peer's number of entries. False: it would exceed MAX_ENTRIES."""
        entries = self._peer_entries.get(peer, 0) + change
        if entries > MAX_ENTRIES:
            return False
        self._peer_entries[peer] = entries
        return True


def member_id_of(endpoint: Endpoint, member: int) -> str:
    """Return the member id that programs see."""
    return f"{endpoint.node}/{member}"
