"""The relay's core as its attachments and peers see it: endpoints come, ask, tell and go."""

from __future__ import annotations

from collections.abc import Callable

from arke.wire.limits import MAX_TOPICS, MAX_WATCHES
from arke.wire.messages import Op, PeerOp
from arke_relay.core.balancer import Balancer
from arke_relay.core.broadcasts import Broadcasts
from arke_relay.core.counters import Counters
from arke_relay.core.directory import Directory, Metadata, member_of
from arke_relay.core.endpoints import Endpoint, Message, MessageSink, Peer, Program
from arke_relay.core.router import Router
from arke_relay.core.tunnels import TunnelRouter


class NotAllowed(ValueError):
    """A endpoint asked for what the protocol does not allow; its connection ends with this text."""


class MessageCore:
    """`node` is this relay's id; `random` returns floats in [0, 1)."""

    def __init__(self, node: str, random: Callable[[], float]) -> None:
        self.node = node
        self.counters = Counters()
        self.address = ""
        """Where peers reach this node."""
        self.directory = Directory(self._announce, self._watched)
        self.tunnels = TunnelRouter(self.counters)
        self.router = Router(self.directory, Balancer(random), self.counters, self.tunnels)
        self.broadcasts = Broadcasts(self.directory, self.counters)
        self.programs: dict[int, Program] = {}
        self.peers: dict[str, Peer] = {}
        self.audience: dict[str, MessageSink] = {}
        """The links that were told the directory, and are told every change of it, by node."""
        self._numbers = 0

    # Programs.

    def attach(self, name: str, sink: MessageSink) -> Program:
        self._numbers += 1
        program = Program(self._numbers, name, self.node, sink)
        self.programs[program.id] = program
        return program

    def register(self, program: Program, cluster: str, metadata: Metadata, now: float) -> None:
        """Raises NotAllowed if the program is registered already."""
        if program.cluster is not None:
            raise NotAllowed(f"this connection already serves {program.cluster!r}")
        program.cluster = cluster
        self.directory.join(cluster, program, program.id, metadata)
        self.router.arrived(cluster, now)

    def leave(self, program: Program) -> None:
        """The program takes no further requests; what it has it still answers."""
        if program.cluster is not None:
            self.directory.leave(program.cluster, program, program.id)
            program.cluster = None

    def subscribe(self, program: Program, topic: str) -> None:
        """Raises NotAllowed beyond the bound on topics."""
        if len(program.topics) >= MAX_TOPICS:
            raise NotAllowed(f"more than {MAX_TOPICS} topics")
        program.topics[topic] = None
        self.directory.subscribe(topic, program)

    def unsubscribe(self, program: Program, topic: str) -> None:
        program.topics.pop(topic, None)
        self.directory.unsubscribe(topic, program)

    def watch(self, program: Program, cluster: str) -> None:
        """Tell a program which members there are, and who comes and goes from now on.

        Raises NotAllowed beyond the bound on watches.
        """
        if len(program.watches) >= MAX_WATCHES:
            raise NotAllowed(f"more than {MAX_WATCHES} watches")
        program.watches[cluster] = None
        self.directory.watch(cluster, program)
        known = self.directory.clusters.get(cluster)
        for endpoint, candidate in known.candidates.items() if known else ():
            for number, metadata in candidate.members.items():
                self._tell_came(program, cluster, endpoint, member_of(endpoint, number), metadata)
        if self.router.settled:
            self._tell_named(program, cluster)

    def unwatch(self, program: Program, cluster: str) -> None:
        program.watches.pop(cluster, None)
        self.directory.unwatch(cluster, program)

    def detach(self, program: Program, now: float) -> None:
        if self.programs.pop(program.id, None) is not None:
            self.directory.forget_program(program)
            self.router.lost(program, "the member left before it answered", now)
            self.tunnels.lost(program, "the program at the other end is gone")

    # Peers.

    def link(self, node: str, sink: MessageSink, address: str) -> Peer:
        """A peer can be heard: from now on it may announce, ask and answer."""
        peer = self.peers[node] = Peer(node, sink, address)
        return peer

    def relink(self, peer: Peer, sink: MessageSink, why: str, now: float) -> None:
        """Our direction to the peer begins anew: what it was asked, and was told, it has lost."""
        peer.sink = sink
        text = f"the link to node {peer.node}: {why}"
        self.router.lost(peer, text, now)
        self.tunnels.lost(peer, text)

    def unlink(self, peer: Peer, now: float) -> None:
        if self.peers.get(peer.node) is peer:
            del self.peers[peer.node]
        self.directory.forget_peer(peer)
        self.router.lost(peer, f"the member's node {peer.node} was lost", now)
        self.tunnels.lost(peer, f"the node {peer.node} of the other end was lost")

    def drain_peer(self, peer: Peer, last_accepted: int, now: float) -> None:
        """The peer is leaving; calls it never accepted go to other members."""
        peer.draining = True
        self.directory.retire_peer(peer)
        self.router.peer_draining(peer, last_accepted, now)

    def settle(self, now: float) -> None:
        """The peers have told what they serve: what is not known now is nowhere."""
        self.router.settle(now)
        for cluster, watchers in self.directory.watchers.items():
            for program in list(watchers):
                self._tell_named(program, cluster)

    # What peers are told.

    def tell(self, node: str, link: MessageSink) -> None:
        """The peer hears this link: tell it the directory, and every change from now on."""
        self.audience[node] = link
        for message in self.directory.snapshot():
            if not link.put(message):
                link.overrun()
                return
        if self.router.draining:
            self._tell_draining(node, link)

    def hush(self, node: str) -> None:
        """The link that the node was told on is no more."""
        self.audience.pop(node, None)

    def tell_draining(self) -> None:
        """Tell every peer that this relay leaves, and which of its calls was the last accepted."""
        for node, link in self.audience.items():
            self._tell_draining(node, link)

    def _tell_draining(self, node: str, link: MessageSink) -> None:
        link.put((PeerOp.DRAINING.value, self.peers[node].last_request_id))

    def _announce(self, message: Message) -> None:
        for link in self.audience.values():
            if not link.put(message):
                # A directory that misses a line is wrong for good: the link must begin anew.
                link.overrun()

    # What watchers are told.

    def _watched(
        self, cluster: str, endpoint: Endpoint, member: str, metadata: Metadata | None
    ) -> None:
        for program in list(self.directory.watchers[cluster]):
            if metadata is not None:
                self._tell_came(program, cluster, endpoint, member, metadata)
            elif not program.sink.put((Op.MEMBER_LEFT.value, cluster, member)):
                program.sink.overrun()

    def _tell_came(
        self, program: Program, cluster: str, endpoint: Endpoint, member: str, metadata: Metadata
    ) -> None:
        address = endpoint.address if isinstance(endpoint, Peer) else self.address
        if not program.sink.put((Op.MEMBER_JOINED.value, cluster, member, address, metadata)):
            program.sink.overrun()

    def _tell_named(self, program: Program, cluster: str) -> None:
        if not program.sink.put((Op.MEMBERS_LISTED.value, cluster)):
            program.sink.overrun()
