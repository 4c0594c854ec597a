"""Relays in one process on a simulated clock: real cores and batches, simulated cables.

A cable transports frames in one direction between two relays. While it is cut they wait, as in a
kernel's buffer. After a link closes, its waiting frames may still arrive, even after the first
frames of the next link.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from random import Random

from msgpack import Packer

from arke.wire.limits import MAX_MESSAGE
from arke.wire.outbox import Outbox
from arke_relay.core.endpoints import Message, Peer, Program
from arke_relay.core.membership import HEARTBEAT, Membership, Neighbour
from arke_relay.core.message_core import MessageCore
from arke_relay.core.routed_request import RoutedRequest
from arke_relay.peers.batch_reader import BatchReader
from support.core_harness import DELIVER_REQUEST, sent_to
from support.recording_sink import RecordingSink

STEP = HEARTBEAT / 5
"""Seconds in one step of the simulation; a frame takes one step."""

REDIAL = 0.1
"""Seconds after a loss before a relay dials again."""


class Cable:
    """The frames of one link that are in flight."""

    def __init__(self, sender: SimulatedRelay, receiver: SimulatedRelay) -> None:
        self.sender = sender
        self.receiver = receiver
        self.frames: deque[bytes] = deque()


class SimulatedLink:
    """One session toward one peer: `PeerLink` without sockets."""

    def __init__(
        self, mesh: SimulatedNetwork, owner: SimulatedRelay, neighbour: Neighbour, session: int
    ) -> None:
        self._mesh = mesh
        self._owner = owner
        self._peer = mesh.relays[neighbour.node]
        self._outbox = Outbox(64 * 1024 * 1024)
        self._pack = Packer().pack
        self._sent = False
        self.session = session
        self.acknowledged = 0
        self.open = True
        self.connected = False
        self.cable = Cable(owner, self._peer)
        mesh.links.append(self)

    def put(self, message: Message) -> bool:
        return self._outbox.put(message)

    def put_body(self, message: Message, at: int, order: Hashable = None) -> bool:
        return self._outbox.put_body(message, at, order)

    def put_packed(self, data: bytes, order: Hashable) -> bool:
        return self._outbox.put_packed(data, order)

    def overrun(self) -> None:
        self.end("send_buffer_full")

    def acknowledge(self, session: int) -> None:
        self.acknowledged = session
        if self.connected:
            self._send(b"")

    def heartbeat(self) -> None:
        if not self._sent and self.connected:
            self._send(b"")
        self._sent = False

    def close(self, linger: float = 0.0) -> None:
        self.open = False

    def connect(self) -> None:
        """Connect, if both directions work and the peer admits this relay."""
        owner, peer = self._owner.node, self._peer.node
        if {(owner, peer), (peer, owner)} & self._mesh.cuts or self._peer.paused:
            return
        if owner in self._peer.admissions:
            self.connected = True
            self._send(b"")
        else:
            self.end("not_admitted")

    def flush(self) -> None:
        while self.connected and self._outbox:
            self._send(self._outbox.take(48 * 1024))

    def end(self, reason: str) -> None:
        self._owner.membership.link_broken(self._peer.node, self.session, reason, self._owner.now)

    def _send(self, messages: bytes) -> None:
        header = self._pack((self.session, int(self._owner.now * 1000), self.acknowledged))
        self.cable.frames.append(header + messages)
        self._sent = True


class SimulatedRelay:
    """One relay: its core, its batches, and the nodes that it admits."""

    def __init__(self, mesh: SimulatedNetwork, node: str, random: Random) -> None:
        self._mesh = mesh
        self.node = node
        self.paused = False
        self.clock_began = random.uniform(0, 1e6)
        self.next_beat = random.uniform(0, HEARTBEAT)
        self.admissions: set[str] = set()
        self.dial_at: dict[str, float] = {}
        self.known: set[str] = set()
        self.losses: list[tuple[str, str]] = []
        self.core = MessageCore(node, random.random)
        self.membership = Membership(self.core.peers, self._dial, self._lost)
        self.batches = BatchReader(
            self.core,
            self.membership,
            16 * 1024 * 1024,
            on_known_peer=lambda node, address, port: self.known.add(node),
            on_synced=lambda peer: None,
            on_draining=lambda peer: None,
        )

    @property
    def now(self) -> float:
        """This machine's own monotonic clock."""
        return self._mesh.time + self.clock_began

    def serve(self, cluster: str) -> Program:
        program = self.core.programs.attach("service", RecordingSink())
        self.core.programs.register(program, cluster, {}, self.now)
        return program

    def request(
        self,
        caller: Program,
        number: int,
        cluster: str,
        *,
        timeout: float = 60.0,
        idempotent: bool = False,
    ) -> None:
        """Make a request as a local program."""
        deadline = self.now + timeout
        request = RoutedRequest(caller, number, cluster, b"question", deadline, caller.sender, None)
        request.idempotent = idempotent
        self.core.router.request(request, self.now)

    def reply(self, member: Program) -> None:
        """Reply to all requests that the member has received, also to cancelled ones."""
        for op, number, *_ in sent_to(member):
            if op == DELIVER_REQUEST:
                self.core.router.reply(member, number, b"answer", self.now)

    def admit(self, other: SimulatedRelay) -> None:
        self.admissions.add(other.node)
        self.membership.admitted(other.node, b"", other.node, 1, 2, MAX_MESSAGE, self.now)

    def end_admission(self, node: str) -> None:
        self.admissions.discard(node)
        self.membership.end(node, "admission_expired", self.now)

    def tick(self) -> None:
        self.membership.tick(self.now)
        self.core.router.expire(self.now)

    def members(self) -> dict[str, dict[str, set[int]]]:
        """Return the members by cluster and node, as this relay knows them."""
        known: dict[str, dict[str, set[int]]] = {}
        for name, cluster in self.core.directory.clusters.items():
            for endpoint, candidate in cluster.candidates.items():
                node = endpoint.node if isinstance(endpoint, Peer) else self.node
                known.setdefault(name, {}).setdefault(node, set()).update(candidate.members)
        return known

    def _dial(self, neighbour: Neighbour, session: int) -> SimulatedLink:
        return SimulatedLink(self._mesh, self, neighbour, session)

    def _lost(self, neighbour: Neighbour, reason: str, detail: str) -> None:
        self.losses.append((neighbour.node, reason))
        self.admissions.discard(neighbour.node)
        self.dial_at[neighbour.node] = self.now + REDIAL


class SimulatedNetwork:
    """`count` relays and the cables between them."""

    def __init__(self, count: int, seed: int = 0) -> None:
        self.time = 0.0
        self.random = Random(seed)
        self.links: list[SimulatedLink] = []
        self.cuts: set[tuple[str, str]] = set()
        self.failure_rate = 0.0
        """Probability that a join reply is lost, or that a connection is delayed by a step."""
        self.closed: list[Cable] = []
        self.relays: dict[str, SimulatedRelay] = {}
        for number in range(count):
            node = f"{number:016x}"
            self.relays[node] = SimulatedRelay(self, node, self.random)
        self.all = list(self.relays.values())

    # What happens to it.

    def cut(self, sender: int, receiver: int) -> None:
        self.cuts.add((self.all[sender].node, self.all[receiver].node))

    def heal(self) -> None:
        self.cuts.clear()
        self.failure_rate = 0.0
        for relay in self.all:
            relay.paused = False

    def break_link(self, sender: int, receiver: int) -> None:
        """Reset the sender's connection, and lose its frames in flight."""
        for link in self._open_links():
            if link._owner is self.all[sender] and link._peer is self.all[receiver]:
                link.cable.frames.clear()
                link.end("the connection broke")

    # Time.

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP)):
            self.step()

    def run_until(self, condition: Callable[[], bool], seconds: float) -> float:
        """Run until the condition is true; return the seconds that it took."""
        began = self.time
        while not condition():
            assert self.time - began < seconds, self.describe()
            self.step()
        return self.time - began

    def step(self) -> None:
        self.time += STEP
        relays = [relay for relay in self.all if not relay.paused]
        self.random.shuffle(relays)
        for relay in relays:
            while relay.next_beat <= self.time:
                relay.next_beat = self.time + HEARTBEAT
                relay.tick()
            self._dial(relay)
        self._deliver()
        for link in self._open_links():
            delayed = self.random.random() < self.failure_rate
            if not link.connected and not link._owner.paused and not delayed:
                link.connect()
        for link in self._open_links():
            if not link._owner.paused:
                link.flush()

    def _open_links(self) -> list[SimulatedLink]:
        for link in self.links:
            if not link.open and link.cable.frames:
                self.closed.append(link.cable)
        self.links = [link for link in self.links if link.open]
        return list(self.links)

    def _dial(self, relay: SimulatedRelay) -> None:
        for other in self.all:
            if other is relay or relay.membership.linked(other.node) or other.paused:
                continue
            if relay.dial_at.get(other.node, 0.0) > relay.now:
                continue
            if {(relay.node, other.node), (other.node, relay.node)} & self.cuts:
                continue
            other.admit(relay)
            if self.random.random() >= self.failure_rate:
                relay.admit(other)
            else:
                relay.dial_at[other.node] = relay.now + REDIAL

    def _deliver(self) -> None:
        self.closed = [cable for cable in self.closed if cable.frames]
        cables = [link.cable for link in self._open_links()] + self.closed
        self.random.shuffle(cables)
        for cable in cables:
            receiver, sender = cable.receiver, cable.sender
            if receiver.paused or (sender.node, receiver.node) in self.cuts:
                continue
            if cable in self.closed and self.random.random() < 0.7:
                continue  # deliver it late, after frames of the next link
            for _ in range(len(cable.frames)):
                frame = cable.frames.popleft()
                if sender.node in receiver.admissions:
                    receiver.batches.receive(sender.node, frame, receiver.now)

    # State.

    def converged(self) -> bool:
        """Whether all relays are linked with each other and know each other's members."""
        return not self.disagreements()

    def disagreements(self) -> list[str]:
        found = []
        for one in self.all:
            for other in self.all:
                if one is not other:
                    found += _differences(one, other)
        return found

    def describe(self) -> str:
        lines = [*self.disagreements()]
        for relay in self.all:
            lines.append(f"{relay.node[-1]} lost: {relay.losses[-6:]}")
            lines += [
                f"{relay.node[-1]} → {neighbour.node[-1]}: session {neighbour.session} "
                f"{'confirmed' if neighbour.acknowledged else 'unconfirmed'}, "
                f"receives {neighbour.peer_session}, rejected {neighbour.rejected_session}"
                for neighbour in relay.membership.neighbours.values()
            ]
        return "\n".join(lines)


def _differences(one: SimulatedRelay, other: SimulatedRelay) -> list[str]:
    link = f"{one.node[-1]} to {other.node[-1]}: "
    there = one.membership.neighbours.get(other.node)
    back = other.membership.neighbours.get(one.node)
    if there is None or back is None:
        return [link + "not linked"]
    found = []
    if there.peer is None or not there.peer.synced:
        found.append(link + "not synchronised")
    if there.peer_session != back.session or not back.acknowledged:
        found.append(link + f"receives {there.peer_session}, not {back.session}")
    known = {
        name: nodes[other.node] for name, nodes in one.members().items() if other.node in nodes
    }
    true = {
        name: nodes[other.node] for name, nodes in other.members().items() if other.node in nodes
    }
    if known != true:
        found.append(link + f"has members {known}, not {true}")
    return found
