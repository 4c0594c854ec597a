"""Decide which relays become peers: run joins against the admission table, then link."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from arke_relay.core.counters import Counters, DropCause
from arke_relay.core.dial_targets import DialTargets
from arke_relay.core.membership import Membership
from arke_relay.discovery.addresses import Address
from arke_relay.environment import RelayEnvironment
from arke_relay.errors import JoinRefused, RefusalCode
from arke_relay.peers.admission_table import AdmissionTable
from arke_relay.peers.join_handshake import AdmittedPeer, Initiator, NodeIdentity, Responder
from arke_relay.peers.join_scheduler import LOG_PERIOD
from arke_relay.peers.node_info import NodeInfo


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """How this relay appears to its peers."""

    bind_addresses: Sequence[Address]
    """The addresses of this machine that the mesh uses."""
    max_message: int
    """The largest body that this relay accepts, in bytes."""
    version: str


class PeerAdmission:
    """The handler of incoming and outgoing joins.

    `on_address` gets the address at which a peer reaches this node.
    """

    def __init__(
        self,
        environment: RelayEnvironment,
        identity: NodeIdentity,
        settings: PeerSettings,
        membership: Membership,
        targets: DialTargets,
        counters: Counters,
        on_address: Callable[[str], None],
    ) -> None:
        self._environment = environment
        self._identity = identity
        self._settings = settings
        self._membership = membership
        self._targets = targets
        self._counters = counters
        self._on_address = on_address
        self._closed = False
        self.join_port = 0
        self.data_port = 0
        self.table = AdmissionTable()

    def close(self) -> None:
        """Admit and link no further peer."""
        self._closed = True

    # Outgoing joins.

    def initiate(self, address: str) -> Initiator:
        return Initiator(
            self._identity,
            self._node_info(address),
            self._environment.random_bytes,
            self._environment.lifetime_clock(),
        )

    def admit(self, peer: AdmittedPeer) -> None:
        if self._closed:
            raise JoinRefused(RefusalCode.SHUTTING_DOWN, "this relay is shutting down")
        self.table.admit(peer, self._environment.lifetime_clock())

    def link(self, peer: AdmittedPeer, address: str) -> None:
        if self._closed:
            return
        now = self._environment.clock()
        info = peer.info
        self._targets.hint((address,), info.join_port, peer.node, None, now)
        if info.observed_address:
            self._on_address(info.observed_address)
        if not self._membership.linked(peer.node):
            self._environment.log.info(
                "peer admitted",
                node=peer.node,
                address=address,
                version=info.version,
                key=peer.signed_by,
            )
        self._membership.admitted(
            peer.node,
            peer.curve_key,
            address,
            info.join_port,
            info.data_port,
            info.max_message,
            now,
        )

    def is_linked(self, node: str) -> bool:
        return self._membership.linked(node)

    # Incoming joins.

    def respond(self, peer_key: bytes, address: str) -> Responder:
        return Responder(
            self._identity,
            self._node_info(address),
            self._environment.random_bytes,
            self._environment.lifetime_clock(),
            peer_key=peer_key,
        )

    def admit_incoming(self, peer: AdmittedPeer, address: str) -> None:
        self.admit(peer)
        # Link after WELCOME is sent: until it arrives, the peer's ZAP handler rejects this relay.
        self._environment.loop.call_soon(self.link, peer, address)

    def incoming_refused(self, address: str, refusal: JoinRefused) -> None:
        if refusal.code is not RefusalCode.CONNECTED_TO_SELF:
            self._counters.drops[DropCause.JOIN_REFUSED] += 1
            self._environment.log.limited(("join", address), LOG_PERIOD).warning(
                "peer refused", address=address, reason=refusal.reason, error=refusal
            )

    def _node_info(self, observed_address: str) -> NodeInfo:
        return NodeInfo(
            self.join_port,
            self.data_port,
            observed_address,
            self._settings.version,
            self._settings.max_message,
        )
