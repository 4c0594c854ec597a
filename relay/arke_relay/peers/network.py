"""This relay among its peers: its sockets and ports, who is admitted, whom to dial."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence

import zmq

from arke_relay.core.exchange import Exchange
from arke_relay.core.membership import BEAT, Membership, Neighbour
from arke_relay.core.parties import Peer
from arke_relay.core.prospects import Prospect, Prospects
from arke_relay.discovery.addresses import Address, source_for
from arke_relay.errors import ConfigurationError, JoinRefused
from arke_relay.flusher import Flusher
from arke_relay.log import Log
from arke_relay.peers.admission import Admissions
from arke_relay.peers.batches import Batches
from arke_relay.peers.gate import Gate
from arke_relay.peers.handshake import Admitted, Identity, Initiator, Responder
from arke_relay.peers.introduction import Introduction
from arke_relay.peers.joins import Join, JoinSocket
from arke_relay.peers.keys import CurvePair
from arke_relay.peers.links import DataSocket, PeerLink
from arke_relay.peers.sockets import endpoint

_SETTLE = 2.0
"""Seconds after the start in which an unknown cluster may still turn up at a peer."""

_LOUD = 60.0
"""Seconds between two log lines about the same outsider."""

_LAST_WORDS = 0.25
"""Seconds that the end of this process waits at most for what its last batches need to leave."""

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
        exchange: Exchange,
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
        self._exchange = exchange
        self._flusher = flusher
        self._clock = clock
        self._lifetime_clock = lifetime_clock
        self._random_bytes = random_bytes
        self._version = version
        self._max_message = max_message
        self._moved = moved
        self._log = log
        self._join_keys = [
            CurvePair.from_secret(key.join_secret(identity.network)) for key in identity.keys
        ]
        self._joins: set[Join] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._dialling: asyncio.Handle | None = None
        self._started = clock()
        self._tick_handle: asyncio.Handle | None = None
        self._renewing: set[str] = set()
        self._closed = False
        self.join_port = 0
        self.data_port = 0
        self.admissions = Admissions()
        self.prospects = Prospects(random)
        self.membership = Membership(exchange, self._dial_data, self._lost)
        self.batches = Batches(
            exchange, self.membership, max_message, self._known, self._synced, self._drained
        )
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.max_sockets = _SOCKETS
        # In this order: the gate runs before anything it guards is bound.
        self._gate = Gate(loop, self._context, self._is_welcome, self._turned_away)
        self._data = DataSocket(loop, self._context, curve, self._receive, flusher)
        self._join = JoinSocket(
            loop,
            self._context,
            self._join_keys[0],
            lifetime_clock,
            self._respond,
            self._admit_responding,
            self._join_failed,
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

    def leave(self) -> None:
        """Close everything; peers see it at once."""
        self._closed = True
        if self._tick_handle:
            self._tick_handle.cancel()
        for join in list(self._joins):
            join.close()
        now = self._clock()
        for node in list(self.membership.neighbours):
            self.membership.end(node, "this relay is leaving", now, _LAST_WORDS)
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
        self._renew()
        self._dial_due()
        if not self._exchange.router.settled and self._is_settled(now):
            self._exchange.router.settle(now)
        self._flusher.flush()

    def _is_settled(self, now: float) -> bool:
        if now - self._started >= _SETTLE:
            return True
        peers = self._exchange.peers
        linked = len(self.membership.neighbours)
        return 0 < linked == len(peers) == self.membership.synced and not self.prospects.exploring

    # Joins that we begin.

    def look(self) -> None:
        """There are new prospects: dial them without waiting for the beat."""
        if self._dialling is None:
            self._dialling = self._loop.call_soon(self._dial_due)

    def _dial_due(self) -> None:
        self._dialling = None
        if not self._closed:
            for prospect in self.prospects.due(self.membership.linked, self._clock()):
                self._start(self._dial(prospect))

    def _start(self, join: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(join)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _dial(self, prospect: Prospect) -> None:
        now = self._clock()
        try:
            admitted = await self._join_at(prospect.address, prospect.port, prospect.key_index)
        except JoinRefused as error:
            myself = error.reason.endswith("this is me")
            self.prospects.failed(prospect, self._clock(), myself=myself)
            log = self._log.debug if myself else self._log.limited(prospect.where, _LOUD).info
            log("peer not joined", address=prospect.where, reason=error.reason)
            return
        except asyncio.CancelledError:
            self.prospects.failed(prospect, now)
            return
        self.prospects.succeeded(prospect, admitted.node, self._clock())
        self._link(admitted, prospect.address)

    async def _join_at(self, address: str, port: int, key_index: int) -> Admitted:
        """One join with whoever is at the address, who is then admitted. Raises JoinRefused."""
        now = self._lifetime_clock()
        initiator = Initiator(self._identity, self._introduction(address), self._random_bytes, now)
        key = self._join_keys[key_index % len(self._join_keys)]
        try:
            join = Join(
                self._loop,
                self._context,
                self._curve,
                key.public,
                initiator,
                self._lifetime_clock,
                self._admit,
            )
        except zmq.ZMQError as error:
            raise JoinRefused(f"no connection can be made: {error}") from error
        self._joins.add(join)
        try:
            join.connect(address, port, source_for(address, self._bound))
            return await join.done
        except OSError as error:
            raise JoinRefused(f"no connection can be made: {error}") from error
        finally:
            self._joins.discard(join)
            join.close()

    def _renew(self) -> None:
        """Join again, at half the life of an admission, with those that we are linked with."""
        for node in self.admissions.renew_due(self._lifetime_clock()):
            neighbour = self.membership.neighbours.get(node)
            if neighbour is not None and node not in self._renewing:
                self._renewing.add(node)
                self._start(self._renew_with(neighbour))

    async def _renew_with(self, neighbour: Neighbour) -> None:
        try:
            for key_index in range(len(self._join_keys)):
                try:
                    await self._join_at(neighbour.address, neighbour.join_port, key_index)
                except JoinRefused as error:
                    self._log.limited(("renew", neighbour.node), 1.0).warning(
                        "admission not renewed", node=neighbour.node, reason=error.reason
                    )
                else:
                    self._log.debug("admission renewed", node=neighbour.node)
                    return
        except asyncio.CancelledError:
            return
        finally:
            self._renewing.discard(neighbour.node)

    # Joins that others begin.

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
            self._exchange.counters.drops["join_refused"] += 1
            self._log.limited(("join", address), _LOUD).warning(
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
        self.prospects.hint((address,), introduction.join_port, admitted.node, None, now)
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
        try:
            self.membership.admitted(
                admitted.node,
                admitted.curve_key,
                address,
                introduction.join_port,
                introduction.data_port,
                introduction.max_message,
                now,
            )
        except (zmq.ZMQError, OSError) as error:
            self.membership.end(admitted.node, f"no link can be made: {error}", now)
        self._flusher.flush()

    def _lost(self, neighbour: Neighbour, reason: str) -> None:
        self.admissions.revoke(neighbour.node)
        self.batches.forget(neighbour.node)
        self.prospects.lost(neighbour.node, self._clock())
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
            self.prospects.hint((address,), port, node, None, self._clock())

    def _synced(self, peer: Peer) -> None:
        self._log.info("peer linked", node=peer.node)

    def _drained(self, peer: Peer) -> None:
        self._log.info("peer is leaving", node=peer.node)

    # Data.

    def _dial_data(self, neighbour: Neighbour, session: int) -> PeerLink:
        def broke(reason: str) -> None:
            self.membership.broke(neighbour.node, session, reason, self._clock())
            self._flusher.flush()

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
        return link

    def _receive(self, key: bytes, frame: bytes) -> None:
        node = self.admissions.lookup(key, self._lifetime_clock())
        if node is None:
            self._exchange.counters.drops["not_admitted"] += 1
        else:
            self.batches.receive(node, frame, self._clock())

    def _is_welcome(self, key: bytes) -> str | None:
        node = self.admissions.lookup(key, self._lifetime_clock())
        if node is None:
            # It may have welcomed us a moment ago, on a join that was not looked at yet.
            for join in list(self._joins):
                join.look()
            node = self.admissions.lookup(key, self._lifetime_clock())
        return node

    def _turned_away(self, address: str) -> None:
        self._exchange.counters.drops["turned_away"] += 1
        self._log.limited(("gate", address), _LOUD).warning(
            "connection turned away", address=address, reason="its key is not admitted"
        )
