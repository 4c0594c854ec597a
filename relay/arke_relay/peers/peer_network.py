"""This relay among its peers: its sockets and ports, who is admitted, whom to dial."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence

import zmq

from arke.program.logging import Log
from arke_relay.core.dial_targets import DialTargets
from arke_relay.core.endpoints import Peer
from arke_relay.core.membership import BEAT, LAST_WORDS, CannotDial, Membership, Neighbour
from arke_relay.core.message_core import MessageCore
from arke_relay.discovery.addresses import Address, source_for
from arke_relay.errors import ConfigurationError, JoinRefused
from arke_relay.flusher import Flusher
from arke_relay.peers.admission import Admissions
from arke_relay.peers.batches import Batches
from arke_relay.peers.introduction import Introduction
from arke_relay.peers.join_handshake import Admitted, Identity, Initiator, Responder
from arke_relay.peers.join_scheduler import LOUD, Joiner
from arke_relay.peers.join_sockets import JoinSocket
from arke_relay.peers.keys import CurvePair
from arke_relay.peers.links import DataSocket, PeerLink
from arke_relay.peers.zap_handler import Gate
from arke_relay.peers.zmq_sockets import endpoint

_SETTLE = 2.0
"""Seconds after the start in which an unknown cluster may still turn up at a peer."""

_FAREWELL = 1.0
"""Seconds in which peers are to answer a farewell."""

_FAREWELL_LOOK = 0.005

_SOCKETS = 16_384
_PORT_TRIES = 50


class PeerNetwork:
    """`clock` is monotonic, `lifetime_clock` also counts while the machine is suspended: seconds.

    `moved` is told the address that peers reach this node at.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        identity: Identity,
        curve: CurvePair,
        bound: Sequence[Address],
        core: MessageCore,
        flusher: Flusher,
        max_message: int,
        clock: Callable[[], float],
        lifetime_clock: Callable[[], float],
        random: Callable[[], float],
        random_bytes: Callable[[int], bytes],
        version: str,
        moved: Callable[[str], None],
        log: Log,
    ) -> None:
        self._loop = loop
        self._identity = identity
        self._curve = curve
        self._bound = bound
        self._core = core
        self._flusher = flusher
        self._clock = clock
        self._lifetime_clock = lifetime_clock
        self._random_bytes = random_bytes
        self._version = version
        self._max_message = max_message
        self._moved = moved
        self._log = log
        join_keys = [
            CurvePair.from_secret(key.join_secret(identity.network)) for key in identity.keys
        ]
        self._started = clock()
        self._tick_handle: asyncio.Handle | None = None
        self._closed = False
        self.join_port = 0
        self.data_port = 0
        self.admissions = Admissions()
        self.dial_targets = DialTargets(random)
        self.membership = Membership(core, self._dial_data, self._lost)
        self.batches = Batches(
            core, self.membership, max_message, self._known, self._synced, self._drained
        )
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.max_sockets = _SOCKETS
        # In this order: the gate runs before anything it guards is bound.
        self._gate = Gate(loop, self._context, self._is_welcome, self._turned_away)
        self._data = DataSocket(loop, self._context, curve, self._receive, flusher)
        self._join = JoinSocket(
            loop,
            self._context,
            join_keys[0],
            lifetime_clock,
            self._respond,
            self._admit_responding,
            self._join_failed,
        )
        self._joiner = Joiner(
            loop,
            self._context,
            curve,
            join_keys,
            bound,
            self.dial_targets,
            clock,
            lifetime_clock,
            self._initiate,
            self._admit,
            self._link,
            self.membership.linked,
            log,
        )

    # Life.

    def bind(self, port: int) -> None:
        """Bind the join socket to `port` and the data socket to the next; 0 takes any two.

        Raises ConfigurationError when they are taken.
        """
        tries = _PORT_TRIES if port == 0 else 1
        for _ in range(tries):
            chosen = port or 20_000 + int.from_bytes(self._random_bytes(2)) % 30_000 // 2 * 2
            try:
                self._bind(chosen)
            except zmq.ZMQError as error:
                refusal = error
                continue
            self.join_port, self.data_port = chosen, chosen + 1
            return
        where = ", ".join(address.ip for address in self._bound)
        why = os.strerror(refusal.errno or 0)
        raise ConfigurationError(
            f"ports {chosen} and {chosen + 1} cannot be bound on {where} ({why}): "
            "stop what uses them, or choose others with -peer-port"
        )

    def start(self) -> None:
        """Begin to dial."""
        self._tick_handle = self._loop.call_soon(self._tick)

    async def say_farewell(self) -> None:
        """Let every peer hear all that was said to it, and hear what it has to say.

        A link that merely broke off might be noticed before its last batches are read: its end is
        seen by another socket than they are.
        """
        self._closed = True
        self.membership.say_farewell(self._clock())
        self._flusher.flush()
        ends = self._clock() + _FAREWELL
        while self.membership.neighbours and self._clock() < ends:  # noqa: ASYNC110 — rare
            await asyncio.sleep(_FAREWELL_LOOK)

    def leave(self) -> None:
        """Close everything; peers see it at once."""
        self._closed = True
        if self._tick_handle:
            self._tick_handle.cancel()
        self._joiner.close()
        now = self._clock()
        for node in list(self.membership.neighbours):
            self.membership.end(node, "this relay is leaving", now, LAST_WORDS)
        self._join.close()
        self._data.close()
        self._gate.close()
        self._context.term()

    @property
    def queued(self) -> int:
        """Octets that wait for peers."""
        links = (n.link for n in self.membership.neighbours.values())
        return sum(link.queued for link in links if isinstance(link, PeerLink))

    def _bind(self, port: int) -> None:
        done: list[tuple[zmq.Socket[bytes], str]] = []
        try:
            for address in self._bound:
                for socket, number in ((self._join.socket, port), (self._data.socket, port + 1)):
                    where = endpoint(address.ip, number)
                    socket.bind(where)
                    done.append((socket, where))
        except zmq.ZMQError:
            for socket, where in done:
                socket.unbind(where)
            raise

    # The beat.

    def _tick(self) -> None:
        try:
            self._look_after_peers()
        except Exception:  # noqa: BLE001 — heartbeats must go on, whatever is wrong
            self._log.exception("looking after peers failed")
        finally:
            self._tick_handle = self._loop.call_later(BEAT, self._tick)

    def _look_after_peers(self) -> None:
        now = self._clock()
        for node in self.admissions.expired(self._lifetime_clock()):
            self.membership.end(node, "its admission ended", now)
        self.membership.tick(now)
        for node in self.admissions.renew_due(self._lifetime_clock()):
            if self.membership.linked(node):
                self._joiner.renew(self.membership.neighbours[node])
        if not self._closed:
            self._joiner.dial_due()
        if not self._core.router.settled and self._is_settled(now):
            self._core.settle(now)
        self._flusher.flush()

    def _is_settled(self, now: float) -> bool:
        if now - self._started >= _SETTLE:
            return True
        peers = self._core.peers
        linked = len(self.membership.neighbours)
        return (
            0 < linked == len(peers) == self.membership.synced and not self.dial_targets.exploring
        )

    # Joins.

    def look(self) -> None:
        """There are new dial_targets: dial them without waiting for the beat."""
        self._joiner.look_soon()

    def _initiate(self, address: str) -> Initiator:
        return Initiator(
            self._identity,
            self._introduction(address),
            self._random_bytes,
            self._lifetime_clock(),
        )

    def _respond(self, peer_key: bytes, address: str) -> Responder:
        return Responder(
            self._identity,
            self._introduction(address),
            self._random_bytes,
            self._lifetime_clock(),
            peer_key=peer_key,
        )

    def _introduction(self, reached: str) -> Introduction:
        return Introduction(
            self.join_port, self.data_port, reached, self._version, self._max_message
        )

    def _join_failed(self, address: str, reason: str) -> None:
        if not reason.endswith("this is me"):
            self._core.counters.drops["join_refused"] += 1
            self._log.limited(("join", address), LOUD).warning(
                "peer refused", address=address, reason=reason
            )

    # Outcomes.

    def _admit_responding(self, admitted: Admitted, address: str) -> None:
        self._admit(admitted)
        # The welcome leaves first: until it has arrived, the other side does not let us in.
        self._loop.call_soon(self._link, admitted, address)

    def _admit(self, admitted: Admitted) -> None:
        """Enter the outcome of a join. Raises JoinRefused."""
        if self._closed:
            raise JoinRefused("this relay is leaving")
        self.admissions.admit(admitted, self._lifetime_clock())

    def _link(self, admitted: Admitted, address: str) -> None:
        if self._closed:
            return
        now = self._clock()
        introduction = admitted.introduction
        self.dial_targets.hint((address,), introduction.join_port, admitted.node, None, now)
        if introduction.reached:
            self._moved(introduction.reached)
        if not self.membership.linked(admitted.node):
            self._log.info(
                "peer admitted",
                node=admitted.node,
                address=address,
                version=introduction.version,
                key=admitted.signed_by,
            )
        self.membership.admitted(
            admitted.node,
            admitted.curve_key,
            address,
            introduction.join_port,
            introduction.data_port,
            introduction.max_message,
            now,
        )
        self._flusher.flush()

    def _lost(self, neighbour: Neighbour, reason: str) -> None:
        self.admissions.revoke(neighbour.node)
        self.dial_targets.lost(neighbour.node, self._clock())
        expected = self._closed or (neighbour.peer is not None and neighbour.peer.draining)
        log = self._log.info if expected else self._log.warning
        log("peer lost", node=neighbour.node, address=neighbour.address, reason=reason)

    def _known(self, node: str, address: str, port: int) -> None:
        """A peer says that somebody else is there."""
        if node != self._identity.node and not self.membership.linked(node):
            try:
                source_for(address, self._bound)
            except ValueError:
                return
            self.dial_targets.hint((address,), port, node, None, self._clock())

    def _synced(self, peer: Peer) -> None:
        self._log.info("peer linked", node=peer.node)

    def _drained(self, peer: Peer) -> None:
        self._log.info("peer is leaving", node=peer.node)

    # Data.

    def _dial_data(self, neighbour: Neighbour, session: int) -> PeerLink:
        def broke(reason: str) -> None:
            self.membership.broke(neighbour.node, session, reason, self._clock())
            self._flusher.flush()

        try:
            link = PeerLink(
                self._loop,
                self._context,
                self._curve,
                neighbour.curve_key,
                neighbour.max_message,
                session,
                self._clock,
                self._flusher,
                broke,
            )
            source = source_for(neighbour.address, self._bound)
            link.connect(neighbour.address, neighbour.data_port, source)
        except (zmq.ZMQError, OSError, ValueError) as error:
            raise CannotDial(str(error)) from error
        return link

    def _receive(self, key: bytes, frame: bytes) -> None:
        node = self.admissions.lookup(key, self._lifetime_clock())
        if node is None:
            self._core.counters.drops["peer_not_admitted"] += 1
        else:
            self.batches.receive(node, frame, self._clock())

    def _is_welcome(self, key: bytes) -> str | None:
        node = self.admissions.lookup(key, self._lifetime_clock())
        if node is None:
            # It may have welcomed us a moment ago, on a join that was not looked at yet.
            self._joiner.look()
            node = self.admissions.lookup(key, self._lifetime_clock())
        return node

    def _turned_away(self, address: str) -> None:
        self._core.counters.drops["connection_not_admitted"] += 1
        self._log.limited(("gate", address), LOUD).warning(
            "connection turned away", address=address, reason="its key is not admitted"
        )
