"""Notify the programs that watch a cluster of its members."""

from __future__ import annotations

from arke.wire.messages import Op
from arke_relay.core.directory import Cluster, Metadata, Watchers, member_id_of
from arke_relay.core.endpoints import Endpoint, Message, Peer, Program
from arke_relay.core.local_node import LocalNode


class MemberNotifier:
    """Sends MEMBER_JOINED, MEMBER_LEFT and MEMBERS_LISTED."""

    def __init__(self, node: LocalNode) -> None:
        self._node = node

    def member_changed(
        self,
        watchers: Watchers,
        cluster: str,
        endpoint: Endpoint,
        member: str,
        metadata: Metadata | None,
    ) -> None:
        """Notify all watchers of one change; None as metadata: the member left."""
        for program in list(watchers):
            if metadata is not None:
                self._send_joined(program, cluster, endpoint, member, metadata)
            else:
                _send(program, (Op.MEMBER_LEFT.value, cluster, member))

    def send_members(self, program: Program, name: str, cluster: Cluster | None) -> None:
        """Send a new watcher the members known now."""
        for endpoint, candidate in cluster.candidates.items() if cluster else ():
            for number, metadata in candidate.members.items():
                self._send_joined(program, name, endpoint, member_id_of(endpoint, number), metadata)

    def send_listed(self, program: Program, cluster: str) -> None:
        """Tell a watcher that every member has been sent, at this node and at all peers."""
        _send(program, (Op.MEMBERS_LISTED.value, cluster))

    def _send_joined(
        self, program: Program, cluster: str, endpoint: Endpoint, member: str, metadata: Metadata
    ) -> None:
        address = endpoint.address if isinstance(endpoint, Peer) else self._node.address
        _send(program, (Op.MEMBER_JOINED.value, cluster, member, address, metadata))


def _send(program: Program, message: Message) -> None:
    """Queue a message that must not be lost; reset the connection if the queue is full."""
    if not program.sink.put(message):
        program.sink.overrun()
