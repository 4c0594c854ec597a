"""The two kinds of endpoint a relay exchanges messages with: its own programs, and its peers."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, Protocol

from arke.wire.reassembly import Reassembler

if TYPE_CHECKING:
    from arke_relay.core.routed_request import RoutedRequest
    from arke_relay.core.tunnels import TunnelEnd

Message = tuple[Any, ...]


class MessageSink(Protocol):
    """The outgoing queue of one endpoint.

    Each `put` returns False if the queue is full and the message was dropped.
    """

    def put(self, message: Message) -> bool:
        """Queue a message without a body, or with one that is known to be small."""

    def put_body(self, message: Message, body_index: int, key: Hashable = None) -> bool:
        """Queue a message with its body in field `body_index`.

        Messages with an equal `key` stay in order. Without one, a small message may overtake a
        large one.
        """

    def put_packed(self, data: bytes, key: Hashable) -> bool:
        """Queue a small message that was packed once for many endpoints."""

    def put_in_flow(self, message: Message, key: int | None) -> bool:
        """Queue a message of a tunnel, in order.

        Credit limits these messages, not the size of the queue. False: there are more than the
        receiver can have granted.
        `key` is the tunnel's id in messages to this endpoint.
        """

    def drop_flow(self, key: int) -> None:
        """Discard what is queued for an aborted tunnel."""

    def overrun(self) -> None:
        """Reset the connection: a message that must not be lost found the queue full."""


class Endpoint:
    """A program or a peer: it makes requests here and replies to them."""

    __slots__ = (
        "held_bytes",
        "id",
        "last_request_id",
        "node",
        "opening_tunnels",
        "requests",
        "sink",
        "tunnels",
    )

    is_peer = False

    def __init__(self, node: str, sink: MessageSink, number: int = 0) -> None:
        self.node = node
        self.sink = sink
        self.id = number
        """The number of a program at its node; 0 for a peer."""
        self.requests: dict[int, RoutedRequest] = {}
        """The open requests it made, by its own request ids."""
        self.last_request_id = 0
        """The highest request id it has used; DRAINING names it as the last accepted."""
        self.held_bytes = 0
        """Bytes kept for its open requests, in case they are retried."""
        self.opening_tunnels = 0
        """Tunnels that it requested or was offered, and that are not accepted yet."""
        self.tunnels: dict[int, TunnelEnd] = {}
        """Its ends of open tunnels, by their ids in messages from it."""


class Program(Endpoint):
    """A process attached to this relay: a caller, and a member once it is registered."""

    __slots__ = ("cluster", "name", "sender", "topics", "watches")

    def __init__(self, number: int, name: str, node: str, sink: MessageSink) -> None:
        super().__init__(node, sink, number)
        self.name = name
        self.sender = f"{node}/{number}"
        """Names the program in its messages: `NODE/NUMBER`, also its member id if registered."""
        self.cluster: str | None = None
        # Dicts as ordered sets: a replayed run removes entries in the same order.
        self.topics: dict[str, None] = {}
        self.watches: dict[str, None] = {}

    def __repr__(self) -> str:
        return f"{self.name}#{self.id}"


class Peer(Endpoint):
    """Another relay of the network, for one session of what it sends to this one."""

    __slots__ = ("address", "closing", "draining", "inbox", "synced")

    is_peer = True

    def __init__(self, node: str, sink: MessageSink, address: str) -> None:
        super().__init__(node, sink)
        self.address = address
        self.synced = False
        """Its whole directory has been received."""
        self.draining = False
        """It is shutting down: new requests go to other nodes."""
        self.closing = False
        """It sent CLOSE: the link ends after the batch being read."""
        self.inbox: Reassembler | None = None
        """Large bodies received in part, in this session only."""

    def __repr__(self) -> str:
        return self.node
