"""The relays this one is linked with: sessions begin, are confirmed, fall silent, end.

Each direction of a link is one session with a number of its sender's, carried by every batch. A
receiver says in its own batches which session it listens to, or which it has given up (`hearing`).

* A session carries nothing but heartbeats until the peer says that it hears it. Then the directory
  is told on it whole: a peer that did not hear the beginning cannot take the rest for all there is.
* A batch of a higher session than the one heard begins the peer anew: what was known of it is
  dropped.
* A batch of a session at or under one that was given up is dropped: nothing from before a break is
  ever delivered after it. Its sender is told, and begins its direction anew.
* Silence, a broken connection or the end of an admission ends both directions, and the admission.
  The two relays then join again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from arke.wire.liveness import Liveness
from arke.wire.messages import PeerOp
from arke.wire.transit_time import TransitTime
from arke_relay.core.endpoints import MessageSink, Peer
from arke_relay.core.message_core import MessageCore

BEAT = 0.25
"""Seconds between two looks at all links; a link that was quiet that long carries a heartbeat."""

PATIENCE = 2.0
"""Seconds of silence after which a peer is lost. Any traffic is life."""

CONFIRMATION = 3.0
"""Seconds in which a peer must say that it hears a new session."""


LAST_WORDS = 0.25
"""Seconds in which what was last sent on a link that ends may still arrive."""


class Link(MessageSink, Protocol):
    """Our sending direction to one peer."""

    def flush(self) -> None:
        """Send what is queued, as far as the peer takes it."""

    def hear(self, session: int) -> None:
        """Say which of the peer's sessions we listen to: with every batch, and at once.

        A negative one, and all before it, we have given up.
        """

    def beat(self) -> None:
        """Send a heartbeat if nothing was sent since the last call."""

    def close(self, linger: float = 0.0) -> None:
        """End it; what is queued is lost, but for what a batch under way needs to arrive.

        `linger` is how long that may take, in seconds.
        """


class CannotDial(Exception):
    """No link to a neighbour can be made; the text says why."""


class Dialler(Protocol):
    def __call__(self, neighbour: Neighbour, session: int) -> Link:
        """Open a link to an admitted neighbour, for one session. Raises CannotDial."""


class Neighbour:
    """One admitted relay, and both directions between it and us."""

    __slots__ = (
        "address",
        "confirmed",
        "curve_key",
        "data_port",
        "given_up",
        "heard_session",
        "join_port",
        "lateness",
        "link",
        "liveness",
        "max_message",
        "node",
        "opened",
        "peer",
        "session",
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
        """The largest body that it takes, in octets."""
        self.link: Link | None = None
        self.session = 0
        self.opened = now
        self.confirmed = False
        self.heard_session = 0
        self.given_up = 0
        self.peer: Peer | None = None
        self.lateness = TransitTime()
        self.liveness = Liveness(PATIENCE, BEAT, now)

    @property
    def state(self) -> str:
        """`admitted` until heard, then `synchronising`, `linked`, and at its end `leaving`."""
        if self.peer is None:
            return "admitted"
        if self.peer.draining:
            return "leaving"
        return "linked" if self.peer.synced else "synchronising"


class Membership:
    """`lost` is told who and why, after its links have ended and its calls failed."""

    def __init__(
        self, core: MessageCore, dial: Dialler, lost: Callable[[Neighbour, str], None]
    ) -> None:
        self._core = core
        self._dial = dial
        self._lost = lost
        self._sessions = 0
        self._given_up: dict[str, int] = {}
        self.neighbours: dict[str, Neighbour] = {}

    def linked(self, node: str) -> bool:
        """Whether a link with the node exists or is being made."""
        return node in self.neighbours

    @property
    def synced(self) -> int:
        """How many peers have told their whole directory."""
        return sum(peer.synced for peer in self._core.peers.values())

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
        """A join succeeded: link with the node, or go on with the link there is."""
        known = self.neighbours.get(node)
        if known is not None:
            # What is opened anew goes where the node was reached last.
            known.address, known.join_port, known.data_port = address, join_port, data_port
            if known.peer:
                known.peer.address = address
            return
        self._succeed(address, join_port, now)
        neighbour = Neighbour(node, curve_key, address, join_port, data_port, max_message, now)
        neighbour.given_up = self._given_up.get(node, 0)
        self.neighbours[node] = neighbour
        self._open(neighbour, now)

    def end(self, node: str, reason: str, now: float, linger: float = 0.0) -> None:
        """Neither send to the node nor listen to it any more.

        What has left for it already may arrive for `linger` seconds more.
        """
        neighbour = self.neighbours.pop(node, None)
        if neighbour is None:
            return
        if neighbour.heard_session:
            self._remember(node, max(neighbour.heard_session, neighbour.given_up))
        self._core.hush(node)
        if neighbour.link:
            neighbour.link.close(linger)
        if neighbour.peer:
            self._core.unlink(neighbour.peer, now)
        self._lost(neighbour, reason)

    def say_farewell(self, now: float) -> None:
        """This relay is done: who hears it is told so, and says the same; others just end."""
        for neighbour in list(self.neighbours.values()):
            if neighbour.confirmed and neighbour.link:
                neighbour.link.put((PeerOp.CLOSE.value,))
            else:
                self.end(neighbour.node, "this relay is leaving", now)

    def depart(self, node: str, now: float) -> None:
        """A peer said farewell. It leaves when it has heard ours, and no sooner."""
        neighbour = self.neighbours.get(node)
        if neighbour is not None and neighbour.link:
            neighbour.link.put((PeerOp.CLOSE.value,))
            neighbour.link.flush()
        self.end(node, "it left", now, LAST_WORDS)

    # What links report.

    def heard(
        self, node: str, session: int, stamp: float, hearing: int, now: float
    ) -> tuple[Peer, float] | None:
        """A batch came. Returns the peer and the milliseconds the batch waited; None to drop it."""
        neighbour = self.neighbours.get(node)
        if neighbour is None or session <= neighbour.given_up or session < neighbour.heard_session:
            return None
        if session > neighbour.heard_session:
            self._begin(neighbour, session, now)
        neighbour.liveness.on_traffic(now)
        if hearing == neighbour.session:
            if not neighbour.confirmed:
                self._confirm(neighbour)
        elif -hearing >= neighbour.session:
            self._reopen(neighbour, "the peer began anew", now)
            if neighbour.link is None:
                return None
        assert neighbour.peer
        return neighbour.peer, neighbour.lateness.delay(stamp, now * 1000)

    def broke(self, node: str, session: int, reason: str, now: float) -> None:
        """The connection that carried our session ended."""
        neighbour = self.neighbours.get(node)
        if neighbour is not None and neighbour.session == session:
            self.end(node, reason, now)

    def tick(self, now: float) -> None:
        """Called every BEAT: heartbeats out, silent peers gone."""
        for neighbour in list(self.neighbours.values()):
            if neighbour.liveness.timed_out(now):
                self.end(neighbour.node, f"silent for {PATIENCE:g} s", now)
            elif not neighbour.confirmed and now - neighbour.opened > CONFIRMATION:
                self.end(neighbour.node, "it does not hear us", now)
            elif neighbour.link:
                neighbour.link.beat()

    # Inside.

    def _begin(self, neighbour: Neighbour, session: int, now: float) -> None:
        if neighbour.peer:
            self._core.unlink(neighbour.peer, now)
        neighbour.heard_session = session
        neighbour.lateness = TransitTime()
        assert neighbour.link
        neighbour.peer = self._core.link(neighbour.node, neighbour.link, neighbour.address)
        neighbour.link.hear(session)

    def _confirm(self, neighbour: Neighbour) -> None:
        neighbour.confirmed = True
        assert neighbour.link
        self._introduce(neighbour, neighbour.link)
        self._core.tell(neighbour.node, neighbour.link)

    def _introduce(self, newcomer: Neighbour, link: Link) -> None:
        """Tell the newcomer who else there is, and the others of it: one seed is enough.

        It hears this before the end of the directory, and so knows whom to ask when it has that.
        """
        for other in self.neighbours.values():
            if other is not newcomer and other.peer:
                link.put(_known(other))
                if other.confirmed and other.link:
                    other.link.put(_known(newcomer))

    def _succeed(self, address: str, join_port: int, now: float) -> None:
        """Whoever was at this place, and is silent, is gone for good.

        Its kernel may still have octets of it to deliver, seconds later: they must not come behind
        what its programs say through the relay that was started anew. Somebody who is heard is
        left alone: behind one address translation there may be several.
        """
        for other in list(self.neighbours.values()):
            silent = other.liveness.silence(now) > 2 * BEAT
            if silent and (other.address, other.join_port) == (address, join_port):
                self.end(other.node, "another relay has taken its place", now)

    def _open(self, neighbour: Neighbour, now: float) -> None:
        self._sessions += 1
        neighbour.session = self._sessions
        neighbour.confirmed = False
        neighbour.opened = now
        try:
            link = self._dial(neighbour, self._sessions)
        except CannotDial as error:
            neighbour.link = None
            self.end(neighbour.node, f"no link can be made: {error}", now)
            return
        link.hear(neighbour.heard_session or -neighbour.given_up)
        neighbour.link = link

    def _reopen(self, neighbour: Neighbour, reason: str, now: float) -> None:
        """Our direction begins anew; what the peer had of us it has dropped."""
        self._core.hush(neighbour.node)
        if neighbour.link:
            neighbour.link.close()
        peer = neighbour.peer
        self._open(neighbour, now)
        if peer and neighbour.link:
            self._core.relink(peer, neighbour.link, reason, now)

    def _remember(self, node: str, session: int) -> None:
        """Node ids are never used twice, so the oldest can go."""
        self._given_up.pop(node, None)
        self._given_up[node] = session
        while len(self._given_up) > 4_096:
            del self._given_up[next(iter(self._given_up))]


def _known(neighbour: Neighbour) -> tuple[object, ...]:
    return (PeerOp.KNOWN_PEER.value, neighbour.node, neighbour.address, neighbour.join_port)
