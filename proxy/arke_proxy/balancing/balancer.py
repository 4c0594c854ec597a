"""The interface of load balancers: pick a backend for a request, and learn the outcome."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Sequence
from enum import Enum, auto
from typing import NamedTuple, Protocol

from arke_proxy.backends.address import BackendAddress


class Warn(Protocol):
    """Logs a warning; those with the same key are limited in rate."""

    def __call__(self, key: Hashable, message: str, /, **fields: object) -> None: ...


class Outcome(Enum):
    """The outcome of a request that was sent to a backend."""

    ANSWERED = auto()
    UNAVAILABLE = auto()  # the backend answered 502, 503 or 504
    FAILED = auto()  # the backend reset or closed the connection, or sent an invalid response
    TIMED_OUT = auto()  # the backend did not answer in time
    ABANDONED = auto()  # the request ended for another reason: this says nothing about the backend


class BackendStatus(NamedTuple):
    """The state of one backend, for the admin pages."""

    address: BackendAddress
    weight: float  # lower than its full weight during slow start
    outstanding: int  # requests of this worker
    ejected: bool  # from rotation
    in_use: bool  # gets requests; in panic mode ejected backends do too


class BackendBalancer(ABC):
    """Picks a backend for each attempt at a request, never one in `tried`.

    `preferred` is the backend in the client's sticky cookie; it is picked if it is usable. Both
    pick methods may raise NoBackend, ClusterQueryFailed, BadClusterReply, AllBackendsTried.
    """

    __slots__ = ()

    @abstractmethod
    def pick_now(
        self, tried: Collection[BackendAddress], preferred: BackendAddress | None = None
    ) -> BackendAddress | None:
        """Pick a backend without waiting. None: call `pick`, which asks the cluster."""

    @abstractmethod
    async def pick(
        self, tried: Collection[BackendAddress], preferred: BackendAddress | None = None
    ) -> BackendAddress:
        """Pick a backend; ask the cluster if necessary."""

    @abstractmethod
    def request_started(self, address: BackendAddress) -> None:
        """Count a request sent to a backend. `request_ended` follows exactly once."""

    @abstractmethod
    def request_ended(self, address: BackendAddress, outcome: Outcome) -> None:
        """Record the outcome of that request."""

    @abstractmethod
    def connect_failed(self, address: BackendAddress) -> None:
        """Record that connecting failed, or that the backend's host is dead."""

    def asks_members(self) -> bool:
        """Whether members are asked for each backend; `statuses` then lists recent answers."""
        return False

    @abstractmethod
    def statuses(self) -> Sequence[BackendStatus]:
        """Return the status of each known backend."""
