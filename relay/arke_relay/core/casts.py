"""One message to many: broadcasts to a cluster, events to a topic. At most once each, in order."""

from __future__ import annotations

from collections.abc import Mapping

from arke_relay.core.counters import Counters
from arke_relay.core.directory import Directory
from arke_relay.core.parties import Peer, Program

from arke.wire.messages import Op, PeerOp

_TOLD = Op.TOLD.value
_EVENT = Op.EVENT.value
_PEER_TOLD = PeerOp.TOLD.value
_PEER_EVENT = PeerOp.EVENT.value

Headers = Mapping[str, str] | None


class Casts:
    """A peer gets one copy and spreads it among its own programs, never further."""

    def __init__(self, directory: Directory, counters: Counters) -> None:
        self._directory = directory
        self._counters = counters

    def broadcast(self, program: Program, name: str, body: bytes, headers: Headers) -> None:
        self._counters.broadcasts += 1
        cluster = self._directory.clusters.get(name)
        if cluster is None:
            return
        order = (program.sender, name)
        here = (_TOLD, body, program.sender, headers)
        there = (_PEER_TOLD, name, body, program.id, headers)
        for party in cluster.candidates:
            put = party.outlet.put_body
            if not (put(there, 2, order) if party.is_peer else put(here, 1, order)):
                self._counters.drops["broadcast_without_room"] += 1

    def peer_broadcast(
        self, peer: Peer, name: str, body: bytes, number: int, headers: Headers
    ) -> None:
        cluster = self._directory.clusters.get(name)
        if cluster is None:
            return
        sender = f"{peer.node}/{number}"
        here = (_TOLD, body, sender, headers)
        for candidate in cluster.here:
            if not candidate.party.outlet.put_body(here, 1, (sender, name)):
                self._counters.drops["broadcast_without_room"] += 1

    def publish(self, program: Program, topic: str, body: bytes, headers: Headers) -> None:
        self._counters.published += 1
        order = (program.sender, topic)
        here = (_EVENT, topic, body, program.sender, headers)
        there = (_PEER_EVENT, topic, body, program.id, headers)
        for party in self._directory.topics.get(topic, ()):
            message = there if party.is_peer else here
            if not party.outlet.put_body(message, 2, order):
                self._counters.drops["event_without_room"] += 1

    def peer_publish(
        self, peer: Peer, topic: str, body: bytes, number: int, headers: Headers
    ) -> None:
        sender = f"{peer.node}/{number}"
        here = (_EVENT, topic, body, sender, headers)
        for party in self._directory.topics.get(topic, ()):
            if not party.is_peer and not party.outlet.put_body(here, 2, (sender, topic)):
                self._counters.drops["event_without_room"] += 1
