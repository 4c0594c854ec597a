"""A relay of the network that says anything at all: frames of an admitted peer."""

from __future__ import annotations

from unittest.mock import patch

from msgpack import Packer, packb

from arke.wire.limits import CHUNK, MAX_ID, unpacker
from arke.wire.messages import Op, PeerOp
from arke.wire.outbox import Outbox
from arke_relay.core.endpoints import Peer
from arke_relay.core.membership import HEARTBEAT, Membership, Neighbour
from arke_relay.peers import message_handlers
from arke_relay.peers.batch_reader import MAX_FRAME, BatchReader
from fuzz.finding import promise
from fuzz.grammar import peer_messages
from fuzz.loop import FakeLoop
from fuzz.mutator import Mutator
from fuzz.script import steps
from fuzz.target import Target
from fuzz.world import (
    CLUSTER,
    HAPPENINGS,
    INBOX,
    MAX_MESSAGE,
    OUTBOX,
    TOPIC,
    World,
    check_inbox,
    check_outbox,
    small_bounds,
)

GUEST = "bbbbbbbbbbbbbbbb"
FRIEND = "dddddddddddddddd"
THERE = "g"
"""The cluster that the honest peer serves."""

# Events, beside those of the world. What stands before most of them is one frame of the guest's
# present session.
AS_IT_IS = 0x13  # what stands before it is a whole frame, header and all
STALE = 0x14  # what stands before it is of the session before
AGAIN = 0x17  # the guest begins another session
GIVING_UP = 0x1A  # the guest has given up our session
ADMITTED = 0x1B  # the guest joins, if it is not linked
BLOCKED = 0x1C  # its link takes nothing more
GOING_ON = 0x1D
EVENTS = (AS_IT_IS, STALE, AGAIN, GIVING_UP, ADMITTED, BLOCKED, GOING_ON)
CANNED = {
    0x20: (Op.CHUNK, 0, 2 * CHUNK, bytes(CHUNK)),
    0x21: (Op.CHUNK, 1, CHUNK + 1, bytes(CHUNK)),
    0x22: (PeerOp.REQUEST, 1, CLUSTER, bytes(CHUNK), 2_000_000, 7, None),
    0x23: (Op.DATA, 1, 2 * CHUNK, bytes(CHUNK)),
    0x24: (PeerOp.PUBLISH, TOPIC, bytes(CHUNK), 7, None),
}
_PACKED = {number: packb(tuple(message)) for number, message in CANNED.items()}


class Link:
    """Our direction to a peer, as `PeerLink` is with sockets."""

    def __init__(self, loop: FakeLoop, session: int) -> None:
        self._loop = loop
        self._session = session
        self._hearing = 0
        self._packer = Packer()
        self.blocked = False
        self.open = True
        self.frames: list[bytes] = []
        self.outbox = Outbox(OUTBOX, max_body=MAX_MESSAGE)
        self.put = self.outbox.put
        self.put_body = self.outbox.put_body
        self.put_packed = self.outbox.put_packed
        self.put_in_flow = self.outbox.put_in_flow
        self.drop_flow = self.outbox.drop_flow
        self.overran = False

    def overrun(self) -> None:
        self.overran = True

    def flush(self) -> None:
        while self.outbox and self.open and not self.blocked:
            self._send(self.outbox.take(48 * 1024))

    def acknowledge(self, session: int) -> None:
        self._hearing = session
        self._send(b"")

    def heartbeat(self) -> None:
        self._send(b"")

    def close(self, linger: float = 0.0) -> None:
        self.open = False

    def _send(self, messages: bytes) -> None:
        header = (self._session, int(self._loop.now * 1000), self._hearing)
        frame = self._packer.pack(header) + messages
        promise(len(frame) <= MAX_FRAME, "a frame is larger than any relay takes")
        self.frames = [*self.frames[-8:], frame]


class PeerWorld(World):
    """With an honest peer that serves `g`, and a guest."""

    def __init__(self, loop: FakeLoop) -> None:
        super().__init__(loop)
        self.links: dict[str, Link] = {}
        self.losses: list[str] = []
        self.membership = Membership(self.core.peers, self._dial, self._lost)
        self.batches = BatchReader(
            self.core,
            self.membership,
            MAX_MESSAGE,
            on_known_peer=lambda node, address, port: None,
            on_synced=lambda peer: None,
            on_draining=lambda peer: None,
        )
        self.session = 1
        for node in (FRIEND, GUEST):
            self.admit(node)
        self.receive(FRIEND, 1, (PeerOp.MEMBER_JOINED, THERE, 1, {}), (PeerOp.SYNCED,))

    def admit(self, node: str) -> None:
        self.membership.admitted(node, b"", "10.1.1.1", 1, 2, MAX_MESSAGE, self.loop.now)

    @property
    def guest(self) -> Peer | None:
        return self.core.peers.by_node.get(GUEST)

    def receive(self, node: str, session: int, *messages: tuple[object, ...]) -> None:
        self.receive_octets(node, session, b"".join(packb(tuple(each)) for each in messages))

    def receive_octets(self, node: str, session: int, octets: bytes, hearing: int = 0) -> None:
        neighbour = self.membership.neighbours.get(node)
        ours = neighbour.session if neighbour else 0
        header = packb((session, int(self.loop.now * 1000), hearing or ours))
        self.receive_frame(node, (header + octets)[:MAX_FRAME])

    def receive_frame(self, node: str, frame: bytes) -> None:
        self.batches.receive(node, frame, self.loop.now)
        self.flush()

    def flush(self) -> None:
        self.flusher.flush()
        for node, link in list(self.links.items()):
            if link.overran and link.open:
                self.membership.link_broken(node, link._session, "send_buffer_full", self.loop.now)
            link.flush()

    async def rest(self) -> None:
        await super().rest()
        self.flush()

    async def pass_time(self, seconds: float) -> None:
        self.loop.now += seconds
        self.receive(FRIEND, 1)
        self.membership.tick(self.loop.now)
        await super().pass_time(HEARTBEAT)

    def check_bounds(self) -> None:
        super().check_bounds()
        for link in self.links.values():
            check_outbox(link.outbox)
        for peer in self.core.peers.by_node.values():
            if peer.inbox is not None:
                check_inbox(peer.inbox, INBOX)

    async def check_guest(self) -> None:
        """It is linked and heard, or was cut off with a reason; and then it is gone."""
        neighbour = self.membership.neighbours.get(GUEST)
        if neighbour is not None:
            session = max(self.session, neighbour.peer_session, neighbour.rejected_session + 1)
            self.receive(GUEST, session, (PeerOp.SUBSCRIBED, "still there"))
            heard = "still there" in self.core.directory.topics
            over = session > MAX_ID  # it has used up its numbers
            promise(heard or over, "a peer is linked, and not heard")
            self.membership.end(GUEST, "it was time", self.loop.now)
        promise(all(self.losses), "a peer was cut off without a reason")
        promise(GUEST not in self.core.peers.by_node, "the peer is still there")
        promise(GUEST not in self.core.peers._announcements.links, "a lost peer is announced to")
        topics = {*self.core.directory.topics} - {TOPIC}
        promise(not topics, f"topics are left: {topics!r:.100}")

    async def check_friend(self) -> None:
        """The honest peer is still linked, and answers a call of a program here."""
        promise(FRIEND in self.membership.neighbours, "an innocent peer was cut off")
        call = self.client.ask(THERE)
        await self.rest()
        frame = self.links[FRIEND].frames[-1]
        _, *messages = _read(frame)
        numbers = [message[1] for message in messages if message[0] == PeerOp.REQUEST]
        promise(numbers, "a call did not reach the innocent peer")
        self.receive(FRIEND, 1, (Op.REPLY, numbers[-1], b"yes"))
        await self.rest()
        promise(self.client.answers.get(call) == b"yes", "the answer of a peer did not arrive")
        self.membership.end(FRIEND, "it was time", self.loop.now)

    def _dial(self, neighbour: Neighbour, session: int) -> Link:
        link = self.links[neighbour.node] = Link(self.loop, session)
        return link

    def _lost(self, neighbour: Neighbour, reason: str, detail: str) -> None:
        self.losses.append(reason)


def _read(frame: bytes) -> list[tuple[object, ...]]:
    unpacked = unpacker(MAX_FRAME + 1)
    unpacked.feed(frame)
    return list(unpacked)


async def run(loop: FakeLoop, data: bytes) -> None:
    with small_bounds(), patch.object(message_handlers, "_MAX_INBOX", INBOX):
        world = PeerWorld(loop)
        await world.rest()
        for reads, happening in steps(data):
            for octets in reads:
                _receive(world, octets, happening)
                if not loop._ready:
                    world.check_bounds()
            await world.rest()
            await _happen(world, happening)
        world.member.transport.go_on()
        await world.rest()
        await world.check_guest()
        await world.rest()
        await world.check_friend()
        await world.check_innocents()


def _receive(world: PeerWorld, octets: bytes, happening: int) -> None:
    if happening == AS_IT_IS:
        world.receive_frame(GUEST, octets[:MAX_FRAME])
    elif happening == STALE:
        world.receive_octets(GUEST, world.session - 1, octets)
    elif happening == GIVING_UP:
        neighbour = world.membership.neighbours.get(GUEST)
        hearing = -neighbour.session if neighbour else -1
        world.receive_octets(GUEST, world.session, octets, hearing)
    else:
        world.receive_octets(GUEST, world.session, octets)


async def _happen(world: PeerWorld, happening: int) -> None:
    if happening in _PACKED:
        world.receive_octets(GUEST, world.session, _PACKED[happening])
    elif happening == AGAIN:
        world.session += 1
    elif happening == ADMITTED and GUEST not in world.membership.neighbours:
        world.admit(GUEST)
        world.session = world.membership.neighbours[GUEST].rejected_session + 1
    elif happening in {BLOCKED, GOING_ON} and GUEST in world.links:
        world.links[GUEST].blocked = happening == BLOCKED
    await world.happen(happening)


TARGET = Target(run, Mutator(peer_messages, (*HAPPENINGS, *EVENTS, *CANNED)))
