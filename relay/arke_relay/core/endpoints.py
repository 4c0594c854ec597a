"""The two kinds of party a relay exchanges messages with: its own programs, and other relays."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, Protocol

from arke.wire.reassembly import Reassembler

if TYPE_CHECKING:
    from arke_relay.core.requests import Call
    from arke_relay.core.tunnels import End

Message = tuple[Any, ...]


class Outlet(Protocol):
    """Where messages to one party leave. False: there is no room, and the message was dropped."""

    def put(self, message: Message) -> bool:
        """Queue a message without a body, or with one that is known to be small."""

    def put_body(self, message: Message, at: int, order: Hashable = None) -> bool:
        """Queue a message with its body in field `at`; equal `order` keeps its order."""

    def put_packed(self, data: bytes, order: Hashable) -> bool:
        """Queue a small message that was packed once for many parties."""

    def put_in_flow(self, message: Message, tunnel: int | None) -> bool:
        """Queue a message of a tunnel, in its order; there is room for all it has credit for.

        `tunnel` is what messages to the party call it.
        """

    def drop_flow(self, tunnel: int) -> None:
        """Forget what is queued for a tunnel that is broken."""

    def overrun(self) -> None:
        """A message that had to arrive found no room: the connection must begin anew."""


class Party:
    """Someone who makes calls here and answers them."""

    __slots__ = ("calls", "held", "id", "last_call", "node", "openings", "outlet", "tunnels")

    is_peer = False

    def __init__(self, node: str, outlet: Outlet, number: int = 0) -> None:
        self.node = node
        self.outlet = outlet
        self.id = number
        """A program's number at its node; a relay has none."""
        self.calls: dict[int, Call] = {}
        """The calls it made, by its own ids."""
        self.last_call = 0
        """The highest id among the calls it made: a goodbye names it."""
        self.held = 0
        """Octets kept for those calls, in case they must be tried again."""
        self.openings = 0
        """Tunnels that it is opening, or was offered, and that are not accepted yet."""
        self.tunnels: dict[int, End] = {}
        """Its ends of tunnels, by the names that come from it."""


class Program(Party):
    """A process attached to this relay: a client, or a member once it is registered."""

    __slots__ = ("cluster", "name", "sender", "topics", "watches")

    def __init__(self, number: int, name: str, node: str, outlet: Outlet) -> None:
        super().__init__(node, outlet, number)
        self.name = name
        self.sender = f"{node}/{number}"
        self.cluster: str | None = None
        # In the order in which they came: what a departure announces is the same in every run.
        self.topics: dict[str, None] = {}
        self.watches: dict[str, None] = {}

    def __repr__(self) -> str:
        return f"{self.name}#{self.id}"


class Peer(Party):
    """Another relay of the network, for as long as one session of links with it lasts."""

    __slots__ = ("address", "draining", "gone", "inbox", "synced")

    is_peer = True

    def __init__(self, node: str, outlet: Outlet, address: str) -> None:
        super().__init__(node, outlet)
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
