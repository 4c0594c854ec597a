"""One message to many: broadcasts to a cluster, events to a topic. At most once each, in order."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping

from msgpack import Packer

from arke.wire.chunked_body import FanoutBody
from arke.wire.limits import CHUNK
from arke.wire.messages import Op, PeerOp
from arke_relay.core.counters import Counters
from arke_relay.core.directory import Directory
from arke_relay.core.endpoints import Endpoint, Message, Peer, Program

_TOLD = Op.DELIVER_BROADCAST.value
_EVENT = Op.DELIVER_EVENT.value
_PEER_TOLD = PeerOp.BROADCAST.value
_PEER_EVENT = PeerOp.PUBLISH.value

Headers = Mapping[str, str] | None


class Broadcasts:
    """A peer gets one copy and spreads it among its own programs, never further."""

    def __init__(self, directory: Directory, counters: Counters) -> None:
        self._directory = directory
        self._counters = counters
        self._pack = Packer().pack

    def broadcast(self, program: Program, name: str, body: FanoutBody, headers: Headers) -> None:
        self._counters.broadcasts += _count(body)
        cluster = self._directory.clusters.get(name)
        if cluster is not None:
            here = (_TOLD, body, program.sender, headers)
            there = (_PEER_TOLD, name, body, program.id, headers)
            self._spread(cluster.candidates, here, 1, there, (program.sender, name))

    def peer_broadcast(
        self, peer: Peer, name: str, body: FanoutBody, number: int, headers: Headers
    ) -> None:
        cluster = self._directory.clusters.get(name)
        if cluster is not None:
            sender = f"{peer.node}/{number}"
            here = (_TOLD, body, sender, headers)
            endpoints = [candidate.endpoint for candidate in cluster.here]
            self._spread(endpoints, here, 1, None, (sender, name))

    def publish(self, program: Program, topic: str, body: FanoutBody, headers: Headers) -> None:
        self._counters.published += _count(body)
        endpoints = self._directory.topics.get(topic)
        if endpoints is not None:
            here = (_EVENT, topic, body, program.sender, headers)
            there = (_PEER_EVENT, topic, body, program.id, headers)
            self._spread(endpoints, here, 2, there, (program.sender, topic))

    def peer_publish(
        self, peer: Peer, topic: str, body: FanoutBody, number: int, headers: Headers
    ) -> None:
        endpoints = self._directory.topics.get(topic)
        if endpoints is not None:
            sender = f"{peer.node}/{number}"
            here = (_EVENT, topic, body, sender, headers)
            self._spread(endpoints, here, 2, None, (sender, topic))

    def _spread(
        self,
        endpoints: Iterable[Endpoint],
        here: Message,
        at: int,
        there: Message | None,
        order: Hashable,
    ) -> None:
        """Send `here`, whose body is field `at`, to programs and `there` (body 2) to peers."""
        packed = self._pack(here) if len(here[at]) <= CHUNK else None
        for endpoint in endpoints:
            if not endpoint.is_peer:
                if packed is not None:
                    taken = endpoint.sink.put_packed(packed, order)
                else:
                    taken = endpoint.sink.put_body(here, at, order)
            elif there is not None:
                taken = endpoint.sink.put_body(there, 2, order)
            else:
                continue
            if not taken:
                self._counters.drops["broadcast_queue_full"] += _count(here[at])


def _count(body: FanoutBody) -> int:
    return len(body) if isinstance(body, tuple) else 1
