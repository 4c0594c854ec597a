"""What the proxy asks whoever chooses back ends, and tells them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from enum import Enum, auto
from typing import NamedTuple

from arke_proxy.backends.address import Address


class Outcome(Enum):
    """What became of a request that a back end was given."""

    ANSWERED = auto()
    UNAVAILABLE = auto()  # it answered 502, 503 or 504
    BROKE = auto()  # it reset or closed the connection, or sent what is no answer
    SILENT = auto()  # it did not answer in time
    ABANDONED = auto()  # the client left: says nothing about the back end


class Standing(NamedTuple):
    """A back end as its chooser sees it, for people and metrics."""

    address: Address
    weight: float  # of its share; less than its own while it is new
    outstanding: int  # requests of this proxy
    out: bool  # of rotation
    used: bool  # in rotation, or out and used all the same because too many are out


class Chooser(ABC):
    """Chooses a back end for each attempt at a request: never one in `tried`.

    `preferred` is where the visitor was before; it is chosen if it can be. Both ways may raise
    NoBackEnd, NotAnswered, BadAnswer, AllTried.
    """

    __slots__ = ()

    @abstractmethod
    def ready(self, tried: Collection[Address], preferred: Address | None = None) -> Address | None:
        """Return one that is known already; None if `choose` has to find out."""

    @abstractmethod
    async def choose(self, tried: Collection[Address], preferred: Address | None = None) -> Address:
        """Find one."""

    @abstractmethod
    def began(self, address: Address) -> None:
        """Learn that a back end was sent a request; `ended` follows, once."""

    @abstractmethod
    def ended(self, address: Address, outcome: Outcome) -> None:
        """Learn what became of it."""

    @abstractmethod
    def unreachable(self, address: Address) -> None:
        """Learn that one could not be connected to, or that its host is dead."""

    def asks(self) -> bool:
        """Say whether the cluster is asked: then its standings are what it has named lately."""
        return False

    @abstractmethod
    def standings(self) -> Sequence[Standing]:
        """Return those that are known."""
