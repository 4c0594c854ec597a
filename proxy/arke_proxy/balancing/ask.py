"""Asking the cluster for every attempt, as the seed did, but ahead of need."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from typing import Final

import arke
from arke_proxy.backends.address import BackendAddress, parse_address
from arke_proxy.balancing.balancer import BackendBalancer, BackendStatus, Outcome
from arke_proxy.balancing.prefetch import Prefetch
from arke_proxy.balancing.recent_backends import RecentBackends
from arke_proxy.errors import AllTried, BadAnswer, NoBackend, NotAnswered, ProxyError

_SECONDS: Final = 1.0  # for one question: a member answers it in a millisecond, or is in trouble
_PATIENCE: Final = 4  # questions without an answer; the mesh has lost a dead member by then
_QUESTIONS: Final = 24  # in all; one of two members is missed once in 16 million searches
_REST: Final = 0.2  # seconds without questions ahead after one that failed


class AskBalancer(BackendBalancer):
    """Asks the cluster, for each attempt, which backend to use; the mesh picks who answers.

    A member may be well while its HTTP port is not: what is out of rotation is only used if the
    cluster names nothing else.
    """

    def __init__(
        self,
        mesh: arke.Mesh,
        cluster: str,
        default_port: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._mesh = mesh
        self._cluster = cluster
        self._default_port = default_port
        self._clock = clock
        self._named = RecentBackends()
        self._ahead = Prefetch()
        self._ahead_answered = self._on_answer_ahead  # bound once

    def pick_now(
        self, tried: Collection[BackendAddress], preferred: BackendAddress | None = None
    ) -> BackendAddress | None:
        """Return the visitor's own, or what the cluster has answered ahead of need."""
        now = self._clock()
        if preferred and preferred not in tried and self._named.lately(preferred, now):
            return preferred
        for _ in range(self._ahead.count(now)):
            self._ask_ahead(now)
        return self._kept(tried, now)

    async def pick(
        self,
        tried: Collection[BackendAddress],
        preferred: BackendAddress | None = None,  # noqa: ARG002 — `pick_now` has looked at it
    ) -> BackendAddress:
        # After a failure, what was kept for others is as good as what would be answered now.
        return self._kept(tried, self._clock()) or await self._search(tried)

    def request_started(self, address: BackendAddress) -> None:
        self._named.request_started(address)

    def request_ended(self, address: BackendAddress, outcome: Outcome) -> None:
        self._named.request_ended(address, outcome, self._clock())

    def connect_failed(self, address: BackendAddress) -> None:
        self._named.connect_failed(address, self._clock())

    def asks_members(self) -> bool:
        return True

    def statuses(self) -> list[BackendStatus]:
        return self._named.statuses(self._clock())

    def _kept(self, tried: Collection[BackendAddress], now: float) -> BackendAddress | None:
        """Hand out an answer that came ahead of need, and names none that failed meanwhile."""
        while address := self._ahead.take(tried, now):
            if not self._named.avoid(address, now):
                return address
        return None

    async def _search(self, tried: Collection[BackendAddress]) -> BackendAddress:
        """Ask until the cluster names one that can be used."""
        unanswered = 0
        last_resort = None
        for _ in range(_QUESTIONS):
            try:
                address = await self._ask()
            except arke.NoSuchCluster:
                raise NoBackend(f"Nobody serves cluster {self._cluster}.") from None
            except arke.ArkeError as error:
                if not self._mesh.attached:
                    raise NotAnswered("The relay of the proxy's machine is away.") from None
                unanswered += 1
                if unanswered == _PATIENCE or isinstance(error, arke.Overloaded):
                    raise NotAnswered(
                        f"Cluster {self._cluster}, asked for a backend, {_describe(error)}."
                    ) from None
            else:
                if address in tried:
                    continue
                if not self._named.avoid(address, self._clock()):
                    return address
                last_resort = address
        if last_resort:
            self._named.risk(last_resort, self._clock())
            return last_resort
        raise AllTried(f"Cluster {self._cluster} names no other backend.")

    async def _ask(self) -> BackendAddress:
        """Ask once. Raises ArkeError, BadAnswer."""
        answer = await self._mesh.request(self._cluster, b"ip", timeout=_SECONDS, idempotent=True)
        return self._read(answer)

    def _read(self, answer: bytes) -> BackendAddress:
        try:
            address = parse_address(answer.decode("ascii").strip(), self._default_port)
        except ValueError:
            raise BadAnswer(
                f"Cluster {self._cluster}, asked for a backend, answered {answer[:60]!r}, "
                "which is neither IP nor IP:PORT."
            ) from None
        self._named.note(address, self._clock())
        return address

    def _ask_ahead(self, now: float) -> None:
        try:
            question = self._mesh.begin_request(
                self._cluster, b"ip", timeout=_SECONDS, idempotent=True
            )
        except arke.ArkeError:  # a request that has to wait finds out, and says so
            self._ahead.pause(now + _REST)
            return
        self._ahead.asked += 1
        question.add_done_callback(self._ahead_answered)

    def _on_answer_ahead(self, question: asyncio.Future[bytes]) -> None:
        self._ahead.asked -= 1
        now = self._clock()
        try:
            address = self._read(question.result())
        except (arke.ArkeError, ProxyError):
            self._ahead.pause(now + _REST)
        else:
            self._ahead.keep(address, now)


def _describe(error: arke.ArkeError) -> str:
    match error:
        case arke.RequestTimeout():
            return f"did not answer within {_SECONDS:g} s"
        case arke.Overloaded():
            return "is overloaded"
        case arke.RemoteError():
            return f"failed to answer ({error.type})"
        case _:
            return f"could not answer: {error}"
