"""The values that the SDK passes to programs: nodes, members, events, broadcasts, answers."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from arke.errors import ArkeError

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Node(NamedTuple):
    """The node that a program is attached to: its id, its address for peers, and its network."""

    id: str
    address: str
    network: str


class Member(NamedTuple):
    """One service of a cluster. `address` is that of its node; `metadata` is what it registered."""

    id: str
    address: str
    metadata: Mapping[str, str]

    @property
    def node(self) -> str:
        """The id of the node that the member runs on."""
        return self.id.partition("/")[0]


class Change(NamedTuple):
    """A member joined its cluster (`joined` is true) or left it."""

    joined: bool
    member: Member


class Answer(NamedTuple):
    """The outcome of a request at one member: the reply in `body`, or the `error`."""

    member: Member
    body: bytes
    error: ArkeError | None


class Event(NamedTuple):
    """One message published to a topic. `sender` is the program's id, `NODE/NUMBER`."""

    topic: str
    body: bytes
    sender: str
    headers: Mapping[str, str]


class Broadcast(NamedTuple):
    """One message to every member of a cluster. `sender` is the program's id, `NODE/NUMBER`."""

    body: bytes
    sender: str
    headers: Mapping[str, str]
