"""The links to peers: open them, confirm them, detect silence, close them.

Each direction of a link is one session. Its sender numbers it, and every batch carries that number.
A batch also carries an acknowledgement: the receiver's session that its sender accepts, or,
negative, the one that it rejects together with all earlier ones.

* A session carries only heartbeats until the peer acknowledges it. Then the whole directory is sent
  on it, because a peer that missed the beginning would take the rest for everything.
* A batch with a higher session number starts the peer anew: what was known of it is dropped.
* A batch of a rejected session is dropped, so nothing from before a break arrives after it. The
  acknowledgement tells its sender, which then opens a new session.
* Silence, a broken connection or an expired admission closes both directions and revokes the
  admission. The two relays then join again.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

from arke.wire.liveness import Liveness
from arke.wire.messages import PeerOp
from arke.wire.transit_time import TransitTime
from arke_relay.core.endpoints import MessageSink, Peer
from arke_relay.core.linked_peers import LinkedPeers

HEARTBEAT = 0.25
"""Seconds between two ticks. A link that sent nothing since the last tick sends a heartbeat."""

SILENCE_TIMEOUT = 2.0
"""Seconds without traffic after which a peer is considered dead."""

CONFIRM_TIMEOUT = 3.0
"""Seconds in which a peer must acknowledge a new session."""

CLOSE_LINGER = 0.25
"""Seconds in which the last messages of a closed link may still be delivered."""

_MAX_REJECTED = 4_096
"""Nodes whose rejected sessions are remembered. Node ids are never reused."""


class LossReason(StrEnum):
    """Why a link ended; a log value. A broken connection has a ConnectionFailure instead."""

    CLOSED_BY_PEER = "closed_by_peer"
    TIMED_OUT = "timed_out"
    NOT_ACKNOWLEDGED = "not_acknowledged"
    """The peer did not acknowledge our session in time."""
    REPLACED = "replaced"
    """Another relay was admitted at the same address."""
    CANNOT_DIAL = "cannot_dial"
    """The link could not be opened; the detail is the system's error."""
    PROTOCOL_ERROR = "protocol_error"
    """The peer sent an invalid message; the detail describes it."""
    ADMISSION_EXPIRED = "admission_expired"
    RELAY_STOPPING = "relay_stopping"


class PeerState(StrEnum):
    """The state of a link, as metrics and `arke status` show it."""

    ADMITTED = "admitted"
    """Its first batch has not arrived yet."""
    SYNCHRONISING = "synchronising"
    """Its directory is arriving."""
    LINKED = "linked"
    DRAINING = "draining"


class OutgoingLink(MessageSink, Protocol):
    """One session of our sending direction to one peer."""

    def flush(self) -> None:
        """Send what is queued, as far as the connection takes it."""

    def acknowledge(self, session: int) -> None:
        """Send an acknowledgement now and with every batch.

        A negative session rejects that one and all earlier ones.
        """

    def heartbeat(self) -> None:
        """Send an empty batch if nothing was sent since the last call."""

    def close(self, linger: float = 0.0) -> None:
        """Close the connection and discard the queue.

        A batch that was already sent may be delivered for `linger` seconds more.
        """


class CannotDial(Exception):
    """No connection to a neighbour can be made; the text says why."""


class OpenLink(Protocol):
    def __call__(self, neighbour: Neighbour, session: int) -> OutgoingLink:
        """Open a link to an admitted neighbour, for one session. Raises CannotDial."""


class Neighbour:
    """One admitted relay, with the sessions of both directions."""

    __slots__ = (
        "acknowledged",
        "address",
        "curve_key",
        "data_port",
        "join_port",
        "link",
        "liveness",
        "max_message",
        "node",
        "opened_at",
        "peer",
        "peer_session",
        "rejected_session",
        "session",
        "transit_time",
    )

    def __init__(
        self,
        node: str,
        curve_key: bytes,
        address: str,
        join_port: int,
        data_port: int,
        max_message: int,
        now: float,
    ) -> None:
        self.node = node
        self.curve_key = curve_key
        self.address = address
        self.join_port = join_port
        self.data_port = data_port
        self.max_message = max_message
        """The largest body that it accepts, in bytes."""
        # Our sending direction.
        self.link: OutgoingLink | None = None
        self.session = 0
        self.opened_at = now
        self.acknowledged = False
        """The peer has acknowledged our session."""
        # Its sending direction.
        self.peer_session = 0
        """The session of its last batch; 0: none has arrived."""
        self.rejected_session = 0
        """Batches of this session and earlier ones are dropped."""
        self.peer: Peer | None = None
        self.transit_time = TransitTime()
        self.liveness = Liveness(SILENCE_TIMEOUT, HEARTBEAT, now)

    @property
    def state(self) -> PeerState:
        if self.peer is None:
            return PeerState.ADMITTED
        if self.peer.draining:
            return PeerState.DRAINING
        return PeerState.LINKED if self.peer.synced else PeerState.SYNCHRONISING


class Membership:
    """Keeps one link to each admitted relay.

    After a link was closed and its requests have failed, `on_lost` is called with the neighbour,
    the reason, and a detail for the log or "".
    """

    def __init__(
        self,
        peers: LinkedPeers,
        open_link: OpenLink,
        on_lost: Callable[[Neighbour, str, str], None],
    ) -> None:
        self._peers = peers
        self._open_link = open_link
        self._on_lost = on_lost
        self._last_session = 0
        self._rejected: dict[str, int] = {}
        """The last session of each node whose link has ended."""
        self.neighbours: dict[str, Neighbour] = {}

    def linked(self, node: str) -> bool:
        """Return whether a link with the node exists or is being opened."""
        return node in self.neighbours

    @property
    def synced(self) -> int:
        """The number of peers whose whole directory has arrived."""
        return sum(peer.synced for peer in self._peers.by_node.values())

    # Admission.

    def admitted(
        self,
        node: str,
        curve_key: bytes,
        address: str,
        join_port: int,
        data_port: int,
        max_message: int,
        now: float,
    ) -> None:
        """Open a link after a join, or keep the one that exists."""
        known = self.neighbours.get(node)
        if known is not None:
            # The next session goes to the address where the node was reached last.
            known.address, known.join_port, known.data_port = address, join_port, data_port
            if known.peer:
                known.peer.address = address
            return
        self._end_predecessor(address, join_port, now)
        neighbour = Neighbour(node, curve_key, address, join_port, data_port, max_message, now)
        neighbour.rejected_session = self._rejected.get(node, 0)
        self.neighbours[node] = neighbour
        self._open_session(neighbour, now)

    def end(
        self, node: str, reason: str, now: float, linger: float = 0.0, detail: str = ""
    ) -> None:
        """Close both directions of a link.

        Batches that were already sent may be delivered for `linger` seconds more. `detail` says
        more about the reason, for the log.
        """
        neighbour = self.neighbours.pop(node, None)
        if neighbour is None:
            return
        if neighbour.peer_session:
            self._reject(node, max(neighbour.peer_session, neighbour.rejected_session))
        self._peers.stop_announcing(node)
        if neighbour.link:
            neighbour.link.close(linger)
        if neighbour.peer:
            self._peers.unlink(neighbour.peer, now)
        self._on_lost(neighbour, reason, detail)

    def send_close(self, now: float) -> None:
        """Send CLOSE to every peer that has acknowledged our session, and end other links.

        The peer replies with CLOSE.
        """
        for neighbour in list(self.neighbours.values()):
            if neighbour.acknowledged and neighbour.link:
                neighbour.link.put((PeerOp.CLOSE.value,))
            else:
                self.end(neighbour.node, LossReason.RELAY_STOPPING, now)

    def peer_closed(self, node: str, now: float) -> None:
        """Reply to a peer's CLOSE and end the link. The peer waits for the reply."""
        neighbour = self.neighbours.get(node)
        if neighbour is not None and neighbour.link:
            neighbour.link.put((PeerOp.CLOSE.value,))
            neighbour.link.flush()
        self.end(node, LossReason.CLOSED_BY_PEER, now, CLOSE_LINGER)

    # Events of links.

    def batch_received(
        self, node: str, session: int, stamp: float, acknowledged: int, now: float
    ) -> tuple[Peer, float] | None:
        """Handle the header of a batch.

        Returns the peer and the batch's delay in transit, in milliseconds. None: drop the batch.
        """
        neighbour = self.neighbours.get(node)
        if (
            neighbour is None
            or session <= neighbour.rejected_session
            or session < neighbour.peer_session
        ):
            return None
        if session > neighbour.peer_session:
            self._start_peer_session(neighbour, session, now)
        neighbour.liveness.on_traffic(now)
        if acknowledged == neighbour.session:
            if not neighbour.acknowledged:
                self._session_acknowledged(neighbour)
        elif -acknowledged >= neighbour.session:
            self._reopen_session(neighbour, "the peer rejected the session", now)
            if neighbour.link is None:
                return None
        assert neighbour.peer
        return neighbour.peer, neighbour.transit_time.delay(stamp, now * 1000)

    def link_broken(self, node: str, session: int, reason: str, now: float) -> None:
        """The connection that carried our session has closed."""
        neighbour = self.neighbours.get(node)
        if neighbour is not None and neighbour.session == session:
            self.end(node, reason, now)

    def tick(self, now: float) -> None:
        """Send heartbeats and end dead links. Call this every HEARTBEAT seconds."""
        for neighbour in list(self.neighbours.values()):
            if neighbour.liveness.timed_out(now):
                self.end(neighbour.node, LossReason.TIMED_OUT, now)
            elif not neighbour.acknowledged and now - neighbour.opened_at > CONFIRM_TIMEOUT:
                self.end(neighbour.node, LossReason.NOT_ACKNOWLEDGED, now)
            elif neighbour.link:
                neighbour.link.heartbeat()

    # Internal.

    def _start_peer_session(self, neighbour: Neighbour, session: int, now: float) -> None:
        if neighbour.peer:
            self._peers.unlink(neighbour.peer, now)
        neighbour.peer_session = session
        neighbour.transit_time = TransitTime()
        assert neighbour.link
        neighbour.peer = self._peers.link(neighbour.node, neighbour.link, neighbour.address)
        neighbour.link.acknowledge(session)

    def _session_acknowledged(self, neighbour: Neighbour) -> None:
        neighbour.acknowledged = True
        assert neighbour.link
        self._introduce(neighbour, neighbour.link)
        self._peers.start_announcing(neighbour.node, neighbour.link)

    def _introduce(self, newcomer: Neighbour, link: OutgoingLink) -> None:
        """Tell the newcomer of the other peers, and them of it, so that one seed is enough.

        This precedes the end of the directory: a synchronised newcomer knows whom to dial.
        """
        for other in self.neighbours.values():
            if other is not newcomer and other.peer:
                link.put(_known_peer(other))
                if other.acknowledged and other.link:
                    other.link.put(_known_peer(newcomer))

    def _end_predecessor(self, address: str, join_port: int, now: float) -> None:
        """End the link to a silent relay that had the address before: it was restarted.

        The kernel may deliver its last batches seconds later, after those of its successor. A relay
        that is not silent is kept: several may share an address behind a NAT.
        """
        for other in list(self.neighbours.values()):
            silent = other.liveness.silence(now) > 2 * HEARTBEAT
            if silent and (other.address, other.join_port) == (address, join_port):
                self.end(other.node, LossReason.REPLACED, now)

    def _open_session(self, neighbour: Neighbour, now: float) -> None:
        self._last_session += 1
        neighbour.session = self._last_session
        neighbour.acknowledged = False
        neighbour.opened_at = now
        try:
            link = self._open_link(neighbour, self._last_session)
        except CannotDial as error:
            neighbour.link = None
            self.end(neighbour.node, LossReason.CANNOT_DIAL, now, detail=str(error))
            return
        link.acknowledge(neighbour.peer_session or -neighbour.rejected_session)
        neighbour.link = link

    def _reopen_session(self, neighbour: Neighbour, reason: str, now: float) -> None:
        """Open a new session: the peer has dropped all of the last one."""
        self._peers.stop_announcing(neighbour.node)
        if neighbour.link:
            neighbour.link.close()
        peer = neighbour.peer
        self._open_session(neighbour, now)
        if peer and neighbour.link:
            self._peers.relink(peer, neighbour.link, reason, now)

    def _reject(self, node: str, session: int) -> None:
        self._rejected.pop(node, None)
        self._rejected[node] = session
        while len(self._rejected) > _MAX_REJECTED:
            del self._rejected[next(iter(self._rejected))]


def _known_peer(neighbour: Neighbour) -> tuple[object, ...]:
    return (PeerOp.KNOWN_PEER.value, neighbour.node, neighbour.address, neighbour.join_port)
