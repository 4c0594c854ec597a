"""The peer codec of the relay with an untrusted but admitted peer."""

from __future__ import annotations

from unittest.mock import patch

from msgpack import packb

from arke.wire.limits import CHUNK, MAX_ID, unpacker
from arke.wire.messages import Op, PeerOp
from arke_relay.core.membership import HEARTBEAT
from arke_relay.peers import message_handlers
from arke_relay.peers.batch_reader import MAX_FRAME
from fuzz.finding import require
from fuzz.grammar import peer_messages
from fuzz.linked_world import LinkedWorld
from fuzz.mutator import Mutator
from fuzz.script import steps
from fuzz.simulated_loop import SimulatedLoop
from fuzz.target import Target
from fuzz.world import (
    CLUSTER,
    MAX_INBOX,
    TOPIC,
    WORLD_EVENTS,
    small_limits,
)

UNTRUSTED = "bbbbbbbbbbbbbbbb"
VALID_PEER = "dddddddddddddddd"
REMOTE_CLUSTER = "g"
"""The cluster that has a member at the valid peer."""

# Events, in addition to those of the world. The bytes before most of them are one frame of the
# untrusted peer's current session.
RAW_FRAME = 0x13  # the bytes before are a frame with its header
STALE_FRAME = 0x14  # the bytes before are a frame of the previous session
NEW_SESSION = 0x17  # the untrusted peer starts another session
REJECT_SESSION = 0x1A  # the untrusted peer rejects this relay's session
JOIN = 0x1B  # the untrusted peer joins, if it is not linked
BLOCK_LINK = 0x1C  # the untrusted peer stops reading
UNBLOCK_LINK = 0x1D
EVENTS = (RAW_FRAME, STALE_FRAME, NEW_SESSION, REJECT_SESSION, JOIN, BLOCK_LINK, UNBLOCK_LINK)
PRESET_MESSAGES = {
    0x20: (Op.CHUNK, 0, 2 * CHUNK, bytes(CHUNK)),
    0x21: (Op.CHUNK, 1, CHUNK + 1, bytes(CHUNK)),
    0x22: (PeerOp.REQUEST, 1, CLUSTER, bytes(CHUNK), 2_000_000, 7, None),
    0x23: (Op.DATA, 1, 2 * CHUNK, bytes(CHUNK)),
    0x24: (PeerOp.PUBLISH, TOPIC, bytes(CHUNK), 7, None),
}
_PACKED_PRESETS = {number: packb(tuple(message)) for number, message in PRESET_MESSAGES.items()}


class PeerWorld(LinkedWorld):
    """A world with two peers: a valid one with a member of cluster `g`, and an untrusted one."""

    def __init__(self, loop: SimulatedLoop) -> None:
        super().__init__(loop)
        self.session = 1
        for node in (VALID_PEER, UNTRUSTED):
            self.admit(node)
        self.receive(VALID_PEER, 1, (PeerOp.MEMBER_JOINED, REMOTE_CLUSTER, 1, {}), (PeerOp.SYNCED,))

    def receive(self, node: str, session: int, *messages: tuple[object, ...]) -> None:
        self.receive_messages(node, session, b"".join(packb(tuple(each)) for each in messages))

    def receive_messages(self, node: str, session: int, data: bytes, acknowledged: int = 0) -> None:
        neighbour = self.membership.neighbours.get(node)
        ours = neighbour.session if neighbour else 0
        header = packb((session, int(self.loop.now * 1000), acknowledged or ours))
        self.receive_frame(node, (header + data)[:MAX_FRAME])

    async def pass_time(self, seconds: float) -> None:
        self.loop.now += seconds
        self.receive(VALID_PEER, 1)
        self.membership.tick(self.loop.now)
        await super().pass_time(HEARTBEAT)

    async def check_untrusted_peer(self) -> None:
        """Check that the untrusted peer works or was lost with a reason; then end its link."""
        neighbour = self.membership.neighbours.get(UNTRUSTED)
        if neighbour is not None:
            session = max(self.session, neighbour.peer_session, neighbour.rejected_session + 1)
            self.receive(UNTRUSTED, session, (PeerOp.SUBSCRIBED, "still there"))
            subscribed = "still there" in self.core.directory.topics
            exhausted = session > MAX_ID  # the peer has used all session numbers
            require(subscribed or exhausted, "the messages of a linked peer are ignored")
            self.membership.end(UNTRUSTED, "end of the test", self.loop.now)
        require(all(reason for reason, _ in self.losses), "a peer was lost without a reason")
        require(UNTRUSTED not in self.core.peers.by_node, "a lost peer is still in the table")
        require(
            UNTRUSTED not in self.core.peers._announcements.links,
            "a lost peer still gets announcements",
        )
        topics = {*self.core.directory.topics} - {TOPIC}
        require(not topics, f"topics are left: {topics!r:.100}")

    async def check_valid_peer(self) -> None:
        """Check that the valid peer is still linked and gets the request of a local program."""
        require(VALID_PEER in self.membership.neighbours, "the valid peer was lost")
        request_id = self.client.send_request(REMOTE_CLUSTER)
        await self.rest()
        frame = self.links[VALID_PEER].frames[-1]
        _, *messages = _read(frame)
        numbers = [message[1] for message in messages if message[0] == PeerOp.REQUEST]
        require(numbers, "a request did not reach the valid peer")
        self.receive(VALID_PEER, 1, (Op.REPLY, numbers[-1], b"yes"))
        await self.rest()
        require(self.client.answers.get(request_id) == b"yes", "the reply of a peer did not arrive")
        self.membership.end(VALID_PEER, "end of the test", self.loop.now)


def _read(frame: bytes) -> list[tuple[object, ...]]:
    unpacked = unpacker(MAX_FRAME + 1)
    unpacked.feed(frame)
    return list(unpacked)


async def run(loop: SimulatedLoop, data: bytes) -> None:
    with small_limits(), patch.object(message_handlers, "_MAX_INBOX", MAX_INBOX):
        world = PeerWorld(loop)
        await world.rest()
        for reads, event_number in steps(data):
            for data in reads:
                _receive(world, data, event_number)
                if not loop._ready:
                    world.check_bounds()
            await world.rest()
            await _handle_event(world, event_number)
        world.member.transport.unblock_writes()
        await world.rest()
        await world.check_untrusted_peer()
        await world.rest()
        await world.check_valid_peer()
        await world.check_valid_programs()


def _receive(world: PeerWorld, data: bytes, event_number: int) -> None:
    if event_number == RAW_FRAME:
        world.receive_frame(UNTRUSTED, data[:MAX_FRAME])
    elif event_number == STALE_FRAME:
        world.receive_messages(UNTRUSTED, world.session - 1, data)
    elif event_number == REJECT_SESSION:
        neighbour = world.membership.neighbours.get(UNTRUSTED)
        acknowledged = -neighbour.session if neighbour else -1
        world.receive_messages(UNTRUSTED, world.session, data, acknowledged)
    else:
        world.receive_messages(UNTRUSTED, world.session, data)


async def _handle_event(world: PeerWorld, event_number: int) -> None:
    if event_number in _PACKED_PRESETS:
        world.receive_messages(UNTRUSTED, world.session, _PACKED_PRESETS[event_number])
    elif event_number == NEW_SESSION:
        world.session += 1
    elif event_number == JOIN and UNTRUSTED not in world.membership.neighbours:
        world.admit(UNTRUSTED)
        world.session = world.membership.neighbours[UNTRUSTED].rejected_session + 1
    elif event_number in {BLOCK_LINK, UNBLOCK_LINK} and UNTRUSTED in world.links:
        world.links[UNTRUSTED].blocked = event_number == BLOCK_LINK
    await world.handle_event(event_number)


TARGET = Target(run, Mutator(peer_messages, (*WORLD_EVENTS, *EVENTS, *PRESET_MESSAGES)))
