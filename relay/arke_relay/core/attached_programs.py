"""The programs attached to this relay: registrations, subscriptions and watches."""

from __future__ import annotations

from arke.wire.limits import MAX_TOPICS, MAX_WATCHES
from arke_relay.core.directory import Directory, Metadata
from arke_relay.core.endpoints import MessageSink, Program
from arke_relay.core.local_node import LocalNode
from arke_relay.core.member_notifier import MemberNotifier
from arke_relay.core.router import Router
from arke_relay.core.tunnels import TunnelRouter


class NotAllowed(ValueError):
    """A program's request breaks a rule of the protocol; its connection ends with this text."""


class AttachedPrograms:
    """Applies what programs say of themselves to the directory, router and tunnels."""

    def __init__(
        self,
        node: LocalNode,
        directory: Directory,
        router: Router,
        tunnels: TunnelRouter,
        watches: MemberNotifier,
    ) -> None:
        self._node = node
        self._directory = directory
        self._router = router
        self._tunnels = tunnels
        self._watches = watches
        self._last_number = 0
        self.by_number: dict[int, Program] = {}

    def attach(self, name: str, sink: MessageSink) -> Program:
        self._last_number += 1
        program = Program(self._last_number, name, self._node.id, sink)
        self.by_number[program.id] = program
        return program

    def register(self, program: Program, cluster: str, metadata: Metadata, now: float) -> None:
        """Make the program a member of a cluster. Raises NotAllowed if it is one already."""
        if program.cluster is not None:
            raise NotAllowed(f"this connection is already registered as {program.cluster!r}")
        program.cluster = cluster
        self._directory.join(cluster, program, program.id, metadata)
        self._router.member_joined(cluster, now)

    def unregister(self, program: Program) -> None:
        """Send the program no new requests; it still replies to those it has."""
        if program.cluster is not None:
            self._directory.leave(program.cluster, program, program.id)
            program.cluster = None

    def subscribe(self, program: Program, topic: str) -> None:
        """Raises NotAllowed beyond MAX_TOPICS."""
        if len(program.topics) >= MAX_TOPICS:
            raise NotAllowed(f"more than {MAX_TOPICS} topics")
        program.topics[topic] = None
        self._directory.subscribe(topic, program)

    def unsubscribe(self, program: Program, topic: str) -> None:
        program.topics.pop(topic, None)
        self._directory.unsubscribe(topic, program)

    def watch(self, program: Program, cluster: str) -> None:
        """Send the program the cluster's members, and every change from now on.

        Raises NotAllowed beyond MAX_WATCHES.
        """
        if len(program.watches) >= MAX_WATCHES:
            raise NotAllowed(f"more than {MAX_WATCHES} watches")
        program.watches[cluster] = None
        self._directory.watch(cluster, program)
        self._watches.send_members(program, cluster, self._directory.clusters.get(cluster))
        if self._router.settled:
            self._watches.send_listed(program, cluster)

    def unwatch(self, program: Program, cluster: str) -> None:
        program.watches.pop(cluster, None)
        self._directory.unwatch(cluster, program)

    def detach(self, program: Program, now: float) -> None:
        """Remove a program whose connection has closed."""
        if self.by_number.pop(program.id, None) is not None:
            self._directory.remove_program(program)
            self._router.endpoint_lost(program, "the member disconnected before it replied", now)
            self._tunnels.endpoint_lost(program, "the program at the other end disconnected")
