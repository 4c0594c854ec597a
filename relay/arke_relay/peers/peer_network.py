"""The peer side of the relay: its sockets and ports, admissions, and links to other relays."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import zmq

from arke_relay.core.counters import DropCause
from arke_relay.core.dial_targets import DialTargets
from arke_relay.core.endpoints import Peer
from arke_relay.core.membership import (
    CLOSE_LINGER,
    HEARTBEAT,
    CannotDial,
    LossReason,
    Membership,
    Neighbour,
)
from arke_relay.core.message_core import MessageCore
from arke_relay.discovery.addresses import source_for
from arke_relay.environment import RelayEnvironment
from arke_relay.errors import ConfigurationError
from arke_relay.flusher import Flusher
from arke_relay.peers.batch_reader import BatchReader
from arke_relay.peers.data_receiver import DataReceiver
from arke_relay.peers.join_handshake import NodeIdentity
from arke_relay.peers.join_scheduler import LOG_PERIOD, JoinScheduler
from arke_relay.peers.join_server import JoinServer
from arke_relay.peers.keys import CurvePair
from arke_relay.peers.peer_admission import PeerAdmission, PeerSettings
from arke_relay.peers.peer_link import PeerLink
from arke_relay.peers.zap_handler import ZapHandler
from arke_relay.peers.zmq_sockets import endpoint

_SETTLE_TIME = 2.0
"""Seconds after the start in which a peer may still announce a cluster that is unknown here."""

_CLOSE_TIMEOUT = 1.0
"""Seconds for peers to answer CLOSE."""

_CLOSE_POLL = 0.005

_MAX_SOCKETS = 16_384
_PORT_TRIES = 50


class PeerNetwork:
    """Owns the peer sockets. `on_address` gets the address at which peers reach this node."""

    def __init__(
        self,
        environment: RelayEnvironment,
        identity: NodeIdentity,
        curve: CurvePair,
        settings: PeerSettings,
        core: MessageCore,
        flusher: Flusher,
        on_address: Callable[[str], None],
    ) -> None:
        self._environment = environment
        self._loop = environment.loop
        self._clock = environment.clock
        self._lifetime_clock = environment.lifetime_clock
        self._log = environment.log
        self._node = identity.node
        self._curve = curve
        self._bind_addresses = settings.bind_addresses
        self._core = core
        self._flusher = flusher
        self._started = self._clock()
        self._tick_handle: asyncio.Handle | None = None
        self._closed = False
        self.dial_targets = DialTargets(environment.random)
        self.membership = Membership(core.peers, self._open_link, self._peer_lost)
        self.batches = BatchReader(
            core,
            self.membership,
            settings.max_message,
            on_known_peer=self._peer_known,
            on_synced=self._peer_synced,
            on_draining=self._peer_draining,
        )
        self._admission = PeerAdmission(
            environment,
            identity,
            settings,
            self.membership,
            self.dial_targets,
            core.counters,
            on_address,
        )
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.max_sockets = _MAX_SOCKETS
        # Fail closed: the ZAP handler runs before the sockets that it guards are bound.
        self._zap_handler = ZapHandler(
            self._loop, self._context, self._find_admitted, self._connection_rejected
        )
        self._data = DataReceiver(self._loop, self._context, curve, self._receive, flusher)
        join_keys = [
            CurvePair.from_secret(key.join_secret(identity.network)) for key in identity.keys
        ]
        self._join_server = JoinServer(
            self._loop, self._context, join_keys[0], self._lifetime_clock, self._admission
        )
        self._joins = JoinScheduler(
            environment,
            self._context,
            curve,
            join_keys,
            self._bind_addresses,
            self.dial_targets,
            self._admission,
        )

    # Start and stop.

    @property
    def join_port(self) -> int:
        return self._admission.join_port

    @property
    def data_port(self) -> int:
        return self._admission.data_port

    def bind(self, port: int) -> None:
        """Bind the join socket to `port` and the data socket to the next one; 0: any two.

        Raises ConfigurationError if they are in use.
        """
        tries = _PORT_TRIES if port == 0 else 1
        for _ in range(tries):
            random = int.from_bytes(self._environment.random_bytes(2))
            chosen = port or 20_000 + random % 30_000 // 2 * 2
            try:
                self._bind(chosen)
            except zmq.ZMQError as error:
                failure = error
                continue
            self._admission.join_port, self._admission.data_port = chosen, chosen + 1
            return
        where = ", ".join(address.ip for address in self._bind_addresses)
        raise ConfigurationError(
            f"cannot bind ports {chosen} and {chosen + 1} on {where} "
            f"({os.strerror(failure.errno or 0)}): "
            "stop the process that uses them, or choose others with -peer-port"
        )

    def start(self) -> None:
        """Start to dial, and to send heartbeats."""
        self._tick_handle = self._loop.call_soon(self._tick)

    async def close_links(self) -> None:
        """Exchange CLOSE with every peer, so that both sides receive what was sent before.

        A link that just breaks may be noticed before its last batches are read, because another
        socket reports the break.
        """
        self._stop_admitting()
        self.membership.send_close(self._clock())
        self._flusher.flush()
        ends = self._clock() + _CLOSE_TIMEOUT
        while self.membership.neighbours and self._clock() < ends:  # noqa: ASYNC110 — rare
            await asyncio.sleep(_CLOSE_POLL)

    def close(self) -> None:
        """Close every socket. Peers notice it at once."""
        self._stop_admitting()
        if self._tick_handle:
            self._tick_handle.cancel()
        self._joins.close()
        now = self._clock()
        for node in list(self.membership.neighbours):
            self.membership.end(node, LossReason.RELAY_STOPPING, now, CLOSE_LINGER)
        self._join_server.close()
        self._data.close()
        self._zap_handler.close()
        self._context.term()

    def _stop_admitting(self) -> None:
        self._closed = True
        self._admission.close()

    @property
    def queued(self) -> int:
        """Bytes that wait to be sent to peers."""
        links = (n.link for n in self.membership.neighbours.values())
        return sum(link.queued for link in links if isinstance(link, PeerLink))

    def _bind(self, port: int) -> None:
        done: list[tuple[zmq.Socket[bytes], str]] = []
        try:
            for address in self._bind_addresses:
                for socket, number in (
                    (self._join_server.socket, port),
                    (self._data.socket, port + 1),
                ):
                    where = endpoint(address.ip, number)
                    socket.bind(where)
                    done.append((socket, where))
        except zmq.ZMQError:
            for socket, where in done:
                socket.unbind(where)
            raise

    # The tick: heartbeats, renewals, dials.

    def _tick(self) -> None:
        try:
            self._maintain_peers()
        except Exception:  # noqa: BLE001 — heartbeats must continue after any error
            self._log.exception("peer maintenance failed")
        finally:
            self._tick_handle = self._loop.call_later(HEARTBEAT, self._tick)

    def _maintain_peers(self) -> None:
        now = self._clock()
        admissions = self._admission.table
        for node in admissions.expired(self._lifetime_clock()):
            self.membership.end(node, LossReason.ADMISSION_EXPIRED, now)
        self.membership.tick(now)
        for node in admissions.renew_due(self._lifetime_clock()):
            if self.membership.linked(node):
                self._joins.renew(self.membership.neighbours[node])
        if not self._closed:
            self._joins.dial_due()
        if not self._core.router.settled and self._is_settled(now):
            self._core.settle(now)
        self._flusher.flush()

    def _is_settled(self, now: float) -> bool:
        """Whether the directory can be taken as complete."""
        if now - self._started >= _SETTLE_TIME:
            return True
        peers = self._core.peers.by_node
        linked = len(self.membership.neighbours)
        return (
            0 < linked == len(peers) == self.membership.synced and not self.dial_targets.exploring
        )

    def dial_soon(self) -> None:
        """Dial new targets without waiting for the next tick."""
        self._joins.dial_soon()

    # What happens to peers.

    def _open_link(self, neighbour: Neighbour, session: int) -> PeerLink:
        def broken(reason: str) -> None:
            self.membership.link_broken(neighbour.node, session, reason, self._clock())
            self._flusher.flush()

        try:
            link = PeerLink(
                self._environment,
                self._context,
                self._curve,
                neighbour,
                session,
                self._flusher,
                broken,
            )
            source = source_for(neighbour.address, self._bind_addresses)
            link.connect(neighbour.address, neighbour.data_port, source)
        except (zmq.ZMQError, OSError, ValueError) as error:
            raise CannotDial(str(error)) from error
        return link

    def _peer_lost(self, neighbour: Neighbour, reason: str, detail: str) -> None:
        self._admission.table.revoke(neighbour.node)
        self.dial_targets.lost(neighbour.node, self._clock())
        expected = self._closed or (neighbour.peer is not None and neighbour.peer.draining)
        log = self._log.info if expected else self._log.warning
        fields = {"detail": detail} if detail else {}
        log("peer lost", node=neighbour.node, address=neighbour.address, reason=reason, **fields)

    def _peer_known(self, node: str, address: str, port: int) -> None:
        """A peer is linked with another relay: dial that one too."""
        if node != self._node and not self.membership.linked(node):
            try:
                source_for(address, self._bind_addresses)
            except ValueError:
                return
            self.dial_targets.hint((address,), port, node, None, self._clock())

    def _peer_synced(self, peer: Peer) -> None:
        self._log.info("peer linked", node=peer.node)

    def _peer_draining(self, peer: Peer) -> None:
        self._log.info("peer draining", node=peer.node)

    # Incoming data.

    def _receive(self, key: bytes, frame: bytes) -> None:
        node = self._admission.table.lookup(key, self._lifetime_clock())
        if node is None:
            self._core.counters.drops[DropCause.PEER_NOT_ADMITTED] += 1
        else:
            self.batches.receive(node, frame, self._clock())

    def _find_admitted(self, key: bytes) -> str | None:
        node = self._admission.table.lookup(key, self._lifetime_clock())
        if node is None:
            # Its WELCOME may have arrived for an outgoing join, and not be processed yet.
            self._joins.check()
            node = self._admission.table.lookup(key, self._lifetime_clock())
        return node

    def _connection_rejected(self, address: str) -> None:
        self._core.counters.drops[DropCause.CONNECTION_NOT_ADMITTED] += 1
        self._log.limited(("zap", address), LOG_PERIOD).warning(
            "connection rejected", address=address, reason="key_not_admitted"
        )
