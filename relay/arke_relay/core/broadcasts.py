"""Fan-out: broadcasts to a cluster, events to a topic. At most once each, in the sender's order."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping

from msgpack import Packer

from arke.wire.chunked_body import FanoutBody
from arke.wire.limits import CHUNK
from arke.wire.messages import Op, PeerOp
from arke_relay.core.counters import Counters, DropCause
from arke_relay.core.directory import Directory
from arke_relay.core.endpoints import Endpoint, Message, Peer, Program

_DELIVER_BROADCAST = Op.DELIVER_BROADCAST.value
_DELIVER_EVENT = Op.DELIVER_EVENT.value
_PEER_BROADCAST = PeerOp.BROADCAST.value
_PEER_PUBLISH = PeerOp.PUBLISH.value
_PEER_BODY_INDEX = 2

Headers = Mapping[str, str] | None


class Broadcasts:
    """Delivers one copy to each local receiver and one to each peer.

    A peer delivers its copy to its own programs and never forwards it to other peers.
    """

    def __init__(self, directory: Directory, counters: Counters) -> None:
        self._directory = directory
        self._counters = counters
        self._pack = Packer().pack

    def broadcast(self, program: Program, name: str, body: FanoutBody, headers: Headers) -> None:
        """Deliver a local program's broadcast to every member of the cluster."""
        self._counters.broadcasts += _count(body)
        cluster = self._directory.clusters.get(name)
        if cluster is not None:
            local = (_DELIVER_BROADCAST, body, program.sender, headers)
            remote = (_PEER_BROADCAST, name, body, program.id, headers)
            self._send(cluster.candidates, local, 1, remote, (program.sender, name))

    def peer_broadcast(
        self, peer: Peer, name: str, body: FanoutBody, number: int, headers: Headers
    ) -> None:
        """Deliver a broadcast of program `number` at a peer to the local members."""
        cluster = self._directory.clusters.get(name)
        if cluster is not None:
            sender = f"{peer.node}/{number}"
            local = (_DELIVER_BROADCAST, body, sender, headers)
            endpoints = [candidate.endpoint for candidate in cluster.here]
            self._send(endpoints, local, 1, None, (sender, name))

    def publish(self, program: Program, topic: str, body: FanoutBody, headers: Headers) -> None:
        """Deliver a local program's event to every subscriber of the topic."""
        self._counters.published += _count(body)
        endpoints = self._directory.topics.get(topic)
        if endpoints is not None:
            local = (_DELIVER_EVENT, topic, body, program.sender, headers)
            remote = (_PEER_PUBLISH, topic, body, program.id, headers)
            self._send(endpoints, local, 2, remote, (program.sender, topic))

    def peer_publish(
        self, peer: Peer, topic: str, body: FanoutBody, number: int, headers: Headers
    ) -> None:
        """Deliver an event of program `number` at a peer to the local subscribers."""
        endpoints = self._directory.topics.get(topic)
        if endpoints is not None:
            sender = f"{peer.node}/{number}"
            local = (_DELIVER_EVENT, topic, body, sender, headers)
            self._send(endpoints, local, 2, None, (sender, topic))

    def _send(
        self,
        endpoints: Iterable[Endpoint],
        local: Message,
        body_index: int,
        remote: Message | None,
        key: Hashable,
    ) -> None:
        """Send `local`, whose body is field `body_index`, to programs, and `remote` to peers.

        Without `remote`, peers are skipped.
        """
        packed = self._pack(local) if len(local[body_index]) <= CHUNK else None
        for endpoint in endpoints:
            if not endpoint.is_peer:
                if packed is not None:
                    queued = endpoint.sink.put_packed(packed, key)
                else:
                    queued = endpoint.sink.put_body(local, body_index, key)
            elif remote is not None:
                queued = endpoint.sink.put_body(remote, _PEER_BODY_INDEX, key)
            else:
                continue
            if not queued:
                self._counters.drops[DropCause.BROADCAST_QUEUE_FULL] += _count(local[body_index])


def _count(body: FanoutBody) -> int:
    return len(body) if isinstance(body, tuple) else 1
