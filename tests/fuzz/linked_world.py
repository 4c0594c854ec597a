"""A world whose relay has links to peers, without sockets."""

from __future__ import annotations

from msgpack import Packer

from arke.wire.outbox import Outbox
from arke_relay.core.membership import Membership, Neighbour
from arke_relay.peers.batch_reader import MAX_FRAME, BatchReader
from fuzz.finding import require
from fuzz.simulated_loop import SimulatedLoop
from fuzz.world import (
    MAX_INBOX,
    MAX_MESSAGE,
    MAX_OUTBOX,
    NODE,
    World,
    check_inbox,
    check_outbox,
)


class Link:
    """The direction from this relay to a peer; `PeerLink` without sockets."""

    def __init__(self, loop: SimulatedLoop, session: int) -> None:
        self._loop = loop
        self._session = session
        self._acknowledged_session = 0
        self._packer = Packer()
        self.blocked = False
        self.open = True
        self.frames: list[bytes] = []
        """Sent frames that were not taken yet."""
        self.outbox = Outbox(MAX_OUTBOX, max_body=MAX_MESSAGE)
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
        self._acknowledged_session = session
        self._send(b"")

    def heartbeat(self) -> None:
        self._send(b"")

    def close(self, linger: float = 0.0) -> None:
        self.open = False

    def take_frames(self) -> list[bytes]:
        frames, self.frames = self.frames, []
        return frames

    def _send(self, messages: bytes) -> None:
        header = (self._session, int(self._loop.now * 1000), self._acknowledged_session)
        frame = self._packer.pack(header) + messages
        require(len(frame) <= MAX_FRAME, "a frame is larger than the limit")
        self.frames.append(frame)


class LinkedWorld(World):
    """A world with a membership. Tests deliver frames with `receive_frame`."""

    def __init__(self, loop: SimulatedLoop, node: str = NODE) -> None:
        super().__init__(loop, node)
        self.links: dict[str, Link] = {}
        self.losses: list[tuple[str, str]] = []
        """The reason of each lost peer, and its detail."""
        self.membership = Membership(self.core.peers, self._dial, self._lost)
        self.batches = BatchReader(
            self.core,
            self.membership,
            MAX_MESSAGE,
            on_known_peer=lambda node, address, port: None,
            on_synced=lambda peer: None,
            on_draining=lambda peer: None,
        )

    def admit(self, node: str) -> None:
        self.membership.admitted(node, b"", "10.1.1.1", 1, 2, MAX_MESSAGE, self.loop.now)

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

    def check_bounds(self) -> None:
        super().check_bounds()
        for link in self.links.values():
            check_outbox(link.outbox)
        for peer in self.core.peers.by_node.values():
            if peer.inbox is not None:
                check_inbox(peer.inbox, MAX_INBOX)

    def _dial(self, neighbour: Neighbour, session: int) -> Link:
        link = self.links[neighbour.node] = Link(self.loop, session)
        return link

    def _lost(self, neighbour: Neighbour, reason: str, detail: str) -> None:
        self.losses.append((reason, detail))
