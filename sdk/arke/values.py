"""What a program is handed: where it runs, and what reaches it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from arke.errors import ArkeError

if TYPE_CHECKING:
    from arke.mesh import Mesh

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Node(NamedTuple):
    """The node a program is attached to, the address peers reach it at, its network's name."""

    id: str
    address: str
    network: str


class Member(NamedTuple):
    """One service of a cluster. `address` is its node's, `metadata` what it says of itself."""

    id: str
    address: str
    metadata: Mapping[str, str]

    @property
    def node(self) -> str:
        """The id of the node it runs on."""
        return self.id.partition("/")[0]


class Change(NamedTuple):
    """A member joined its cluster, or left it."""

    joined: bool
    member: Member


class Answer(NamedTuple):
    """What one member made of a request to all: its reply, or the error that stands for it."""

    member: Member
    body: bytes
    error: ArkeError | None


class Event(NamedTuple):
    """One message published to a topic. `sender` is `node/program`."""

    topic: str
    body: bytes
    sender: str
    headers: Mapping[str, str]


class Broadcast(NamedTuple):
    """One message to every member of a cluster. `sender` is `node/program`."""

    body: bytes
    sender: str
    headers: Mapping[str, str]


class Request:
    """One request to be answered. `deadline` is the loop's time at which nobody waits any more."""

    __slots__ = ("_mesh", "body", "call", "deadline", "headers", "sender")

    def __init__(
        self,
        call: int,
        body: bytes,
        deadline: float,
        sender: str,
        headers: Mapping[str, str],
        mesh: Mesh,
    ) -> None:
        self.call = call
        self.body = body
        self.deadline = deadline
        self.sender = sender
        self.headers = headers
        self._mesh = mesh

    @property
    def mesh(self) -> Mesh:
        """The mesh, for further calls: they inherit this request's deadline and `traceparent`."""
        return self._mesh.within(self.deadline, self.headers.get("traceparent"))

    def remaining(self) -> float:
        """Seconds until the deadline; zero or less once it has passed."""
        return self.deadline - time.monotonic()

    def __repr__(self) -> str:
        return f"Request({len(self.body)} bytes from {self.sender}, {self.remaining():.3f} s left)"
