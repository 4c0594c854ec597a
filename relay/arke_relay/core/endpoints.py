"""The two kinds of endpoint a relay exchanges messages with: its own programs, and other relays."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, Protocol

from arke.wire.reassembly import Reassembler

if TYPE_CHECKING:
    from arke_relay.core.routed_request import RoutedRequest
    from arke_relay.core.tunnels import End

Message = tuple[Any, ...]


class MessageSink(Protocol):
    """Queue of messages to one endpoint. False: the queue is full, the message was dropped."""

    def put(self, message: Message) -> bool:
        """Queue a message without a body, or with one that is known to be small."""

    def put_body(self, message: Message, at: int, order: Hashable = None) -> bool:
        """Queue a message with its body in field `at`; equal `order` keeps its order."""

    def put_packed(self, data: bytes, order: Hashable) -> bool:
        """Queue a small message that was packed once for many endpoints."""

    def put_in_flow(self, message: Message, tunnel: int | None) -> bool:
        """Queue a message of a tunnel, in its order; there is room for all it has credit for.

        `tunnel` is what messages to the endpoint call it.
        """

    def drop_flow(self, tunnel: int) -> None:
        """Forget what is queued for a tunnel that is broken."""

    def overrun(self) -> None:
        """A message that had to arrive found no room: the connection must begin anew."""


class Endpoint:
    """Someone who makes calls here and answers them."""

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
        """A program's number at its node; a relay has none."""
        self.requests: dict[int, RoutedRequest] = {}
        """The calls it made, by its own ids."""
        self.last_request_id = 0
        """The highest id among the calls it made: a goodbye names it."""
        self.held_bytes = 0
        """Octets kept for those calls, in case they must be tried again."""
        self.opening_tunnels = 0
        """TunnelRouter that it is opening, or was offered, and that are not accepted yet."""
        self.tunnels: dict[int, End] = {}
        """Its ends of tunnels, by the names that come from it."""


class Program(Endpoint):
    """A process attached to this relay: a client, or a member once it is registered."""

    __slots__ = ("cluster", "name", "sender", "topics", "watches")

    def __init__(self, number: int, name: str, node: str, sink: MessageSink) -> None:
        super().__init__(node, sink, number)
        self.name = name
        self.sender = f"{node}/{number}"
        self.cluster: str | None = None
        # In the order in which they came: what a departure announces is the same in every run.
        self.topics: dict[str, None] = {}
        self.watches: dict[str, None] = {}

    def __repr__(self) -> str:
        return f"{self.name}#{self.id}"


class Peer(Endpoint):
    """Another relay of the network, for as long as one session of links with it lasts."""

    __slots__ = ("address", "draining", "gone", "inbox", "synced")

    is_peer = True

    def __init__(self, node: str, sink: MessageSink, address: str) -> None:
        super().__init__(node, sink)
        self.address = address
        self.synced = False
        """It has told its whole directory."""
        self.draining = False
        """It is leaving: nothing new goes there."""
        self.gone = False
        """It has said farewell."""
        self.inbox: Reassembler | None = None
        """Bodies that it has half sent in this session: those of an earlier one are gone."""

    def __repr__(self) -> str:
        return self.node
