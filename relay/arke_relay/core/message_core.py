"""Build the parts of the core and connect them."""

from __future__ import annotations

from collections.abc import Callable

from arke_relay.core.attached_programs import AttachedPrograms
from arke_relay.core.balancer import PowerOfTwoBalancer
from arke_relay.core.broadcasts import Broadcasts
from arke_relay.core.counters import Counters
from arke_relay.core.directory import Directory
from arke_relay.core.linked_peers import Announcements, LinkedPeers
from arke_relay.core.local_node import LocalNode
from arke_relay.core.member_notifier import MemberNotifier
from arke_relay.core.router import Router
from arke_relay.core.tunnels import TunnelRouter


class MessageCore:
    """The parts of one relay's core. Other modules are given the parts that they need.

    `node` is this relay's id; `random` returns floats in [0, 1).
    """

    def __init__(self, node: str, random: Callable[[], float]) -> None:
        self.node = LocalNode(node)
        self.counters = Counters()
        announcements = Announcements()
        self._watches = MemberNotifier(self.node)
        self.directory = Directory(announcements.announce, self._watches.member_changed)
        self.tunnels = TunnelRouter(self.counters)
        balancer = PowerOfTwoBalancer(random)
        self.router = Router(self.directory, balancer, self.counters, self.tunnels)
        self.broadcasts = Broadcasts(self.directory, self.counters)
        self.programs = AttachedPrograms(
            self.node, self.directory, self.router, self.tunnels, self._watches
        )
        self.peers = LinkedPeers(self.directory, self.router, self.tunnels, announcements)

    def settle(self, now: float) -> None:
        """The directory is complete: unknown clusters have no members, watches list them all."""
        self.router.settle(now)
        for cluster, watchers in self.directory.watchers.items():
            for program in list(watchers):
                self._watches.send_listed(program, cluster)
