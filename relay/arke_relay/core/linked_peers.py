"""The peers that a link exists with, and the announcement of this node's directory to them."""

from __future__ import annotations

from arke.wire.messages import PeerOp
from arke_relay.core.directory import Directory
from arke_relay.core.endpoints import Message, MessageSink, Peer
from arke_relay.core.router import Router
from arke_relay.core.tunnels import TunnelRouter


class Announcements:
    """Links on which this node's directory was sent, and to which every change of it goes."""

    def __init__(self) -> None:
        self.links: dict[str, MessageSink] = {}
        """By the peer's node id."""

    def announce(self, message: Message) -> None:
        """Send one change to all peers."""
        for link in self.links.values():
            if not link.put(message):
                # A peer that misses one change stays wrong: its link must be reset.
                link.overrun()


class LinkedPeers:
    """Applies the state of links to the directory, router and tunnels."""

    def __init__(
        self,
        directory: Directory,
        router: Router,
        tunnels: TunnelRouter,
        announcements: Announcements,
    ) -> None:
        self._directory = directory
        self._router = router
        self._tunnels = tunnels
        self._announcements = announcements
        self.by_node: dict[str, Peer] = {}

    def link(self, node: str, sink: MessageSink, address: str) -> Peer:
        """Add a peer whose first batch has arrived."""
        peer = self.by_node[node] = Peer(node, sink, address)
        return peer

    def relink(self, peer: Peer, sink: MessageSink, reason: str, now: float) -> None:
        """Replace our direction of a link. The peer has dropped all that it was sent before."""
        peer.sink = sink
        text = f"the link to node {peer.node} was reset: {reason}"
        self._router.endpoint_lost(peer, text, now)
        self._tunnels.endpoint_lost(peer, text)

    def unlink(self, peer: Peer, now: float) -> None:
        """Remove a peer that was lost or has closed its link."""
        if self.by_node.get(peer.node) is peer:
            del self.by_node[peer.node]
        self._directory.remove_peer(peer)
        self._router.endpoint_lost(peer, f"the connection to node {peer.node} was lost", now)
        self._tunnels.endpoint_lost(peer, f"the connection to node {peer.node} was lost")

    def drain(self, peer: Peer, last_accepted: int, now: float) -> None:
        """Handle DRAINING: the peer takes no requests after `last_accepted`."""
        peer.draining = True
        self._directory.remove_members_of(peer)
        self._router.peer_draining(peer, last_accepted, now)

    def start_announcing(self, node: str, link: MessageSink) -> None:
        """Send the whole directory on a link, and every change from now on."""
        self._announcements.links[node] = link
        for message in self._directory.snapshot():
            if not link.put(message):
                link.overrun()
                return
        if self._router.draining:
            self._send_draining(node, link)

    def stop_announcing(self, node: str) -> None:
        """Forget the link to a node: it has closed."""
        self._announcements.links.pop(node, None)

    def announce_draining(self) -> None:
        """Tell each peer that this relay shuts down, and the last of its requests accepted."""
        for node, link in self._announcements.links.items():
            self._send_draining(node, link)

    def _send_draining(self, node: str, link: MessageSink) -> None:
        link.put((PeerOp.DRAINING.value, self.by_node[node].last_request_id))
