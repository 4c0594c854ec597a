"""What the proxy asks whoever chooses backends, and tells them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from enum import Enum, auto
from typing import NamedTuple

from arke_proxy.backends.address import BackendAddress


class Outcome(Enum):
    """What became of a request that a backend was given."""

    ANSWERED = auto()
    UNAVAILABLE = auto()  # it answered 502, 503 or 504
    FAILED = auto()  # it reset or closed the connection, or sent what is no answer
    TIMED_OUT = auto()  # it did not answer in time
    ABANDONED = auto()  # the client left: says nothing about the backend


class BackendStatus(NamedTuple):
    """A backend as its chooser sees it, for people and metrics."""

    address: BackendAddress
    weight: float  # of its share; less than its own while it is new
    outstanding: int  # requests of this proxy
    out: bool  # of rotation
    used: bool  # in rotation, or out and used all the same because too many are out


class BackendBalancer(ABC):
    """Chooses a backend for each attempt at a request: never one in `tried`.

    `preferred` is where the visitor was before; it is chosen if it can be. Both ways may raise
    NoBackEnd, NotAnswered, BadAnswer, AllTried.
    """

    __slots__ = ()

    @abstractmethod
    def pick_now(
        self, tried: Collection[BackendAddress], preferred: BackendAddress | None = None
    ) -> BackendAddress | None:
        """Return one that is known already; None if `pick` has to find out."""

    @abstractmethod
    async def pick(
        self, tried: Collection[BackendAddress], preferred: BackendAddress | None = None
    ) -> BackendAddress:
        """Find one."""

    @abstractmethod
    def request_started(self, address: BackendAddress) -> None:
        """Learn that a backend was sent a request; `request_ended` follows, once."""

    @abstractmethod
    def request_ended(self, address: BackendAddress, outcome: Outcome) -> None:
        """Learn what became of it."""

    @abstractmethod
    def connect_failed(self, address: BackendAddress) -> None:
        """Learn that one could not be connected to, or that its host is dead."""

    def asks_members(self) -> bool:
        """Say whether the cluster is asked: then its standings are what it has named lately."""
        return False

    @abstractmethod
    def statuses(self) -> Sequence[BackendStatus]:
        """Return those that are known."""
