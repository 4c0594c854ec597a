"""`-choose ask`: ask a member of the cluster for a backend's address, with prefetched answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from typing import Final

import arke
from arke_proxy.backends.address import BackendAddress, parse_address
from arke_proxy.balancing.balancer import BackendBalancer, BackendStatus, Outcome
from arke_proxy.balancing.named_addresses import NamedAddresses
from arke_proxy.balancing.prefetch import Prefetch
from arke_proxy.balancing.recent_backends import RecentBackends
from arke_proxy.errors import (
    AllBackendsTried,
    BadClusterReply,
    ClusterQueryFailed,
    NoBackend,
    ProxyError,
)

_REQUEST_BODY: Final = b"ip"
_TIMEOUT: Final = 1.0  # seconds for one request; a member normally answers within a millisecond
_MAX_FAILURES: Final = 4  # failed requests; by then the mesh has noticed a dead member
_MAX_REQUESTS: Final = 24  # with two members, one of them is missed once in 2^24 searches
_PREFETCH_PAUSE: Final = 0.2  # seconds without prefetching after a failed request


class AskBalancer(BackendBalancer):
    """Asks the cluster for a backend for each attempt; the mesh picks the member that answers.

    A member may answer while its HTTP server does not. So an ejected backend is used only if the
    cluster names no other one.
    """

    def __init__(
        self,
        mesh: arke.Mesh,
        cluster: str,
        default_port: int,
        named: NamedAddresses,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._mesh = mesh
        self._cluster = cluster
        self._default_port = default_port
        self._named = named
        self._clock = clock
        self._recent = RecentBackends()
        self._prefetch = Prefetch()
        self._on_answer = self._on_prefetched  # cached bound method: one allocation less per use

    def pick_now(
        self, tried: Collection[BackendAddress], preferred: BackendAddress | None = None
    ) -> BackendAddress | None:
        """Return the client's sticky backend, or a prefetched one; None if there is neither."""
        now = self._clock()
        if preferred and preferred not in tried and self._recent.usable(preferred, now):
            return preferred
        for _ in range(self._prefetch.count_request(now)):
            self._prefetch_one(now)
        return self._take_prefetched(tried, now)

    async def pick(
        self,
        tried: Collection[BackendAddress],
        preferred: BackendAddress | None = None,  # noqa: ARG002 — `pick_now` has handled it
    ) -> BackendAddress:
        # After a failed attempt a prefetched answer is as good as a new one.
        return self._take_prefetched(tried, self._clock()) or await self._search(tried)

    def request_started(self, address: BackendAddress) -> None:
        self._recent.request_started(address)

    def request_ended(self, address: BackendAddress, outcome: Outcome) -> None:
        self._recent.request_ended(address, outcome, self._clock())

    def connect_failed(self, address: BackendAddress) -> None:
        self._recent.connect_failed(address, self._clock())

    def asks_members(self) -> bool:
        return True

    def statuses(self) -> list[BackendStatus]:
        return self._recent.statuses(self._clock())

    def _take_prefetched(
        self, tried: Collection[BackendAddress], now: float
    ) -> BackendAddress | None:
        while address := self._prefetch.take(tried, now):
            if not self._recent.avoid(address, now):  # it may have failed since
                return address
        return None

    async def _search(self, tried: Collection[BackendAddress]) -> BackendAddress:
        """Ask until the cluster names a usable backend."""
        failures = 0
        ejected = None
        for _ in range(_MAX_REQUESTS):
            try:
                address = await self._ask()
            except arke.NoSuchCluster:
                raise NoBackend(f"Cluster {self._cluster} has no members.") from None
            except arke.ArkeError as error:
                if not self._mesh.attached:
                    raise ClusterQueryFailed("The proxy is not connected to its relay.") from None
                failures += 1
                if failures == _MAX_FAILURES or isinstance(error, arke.Overloaded):
                    raise ClusterQueryFailed(
                        f"Cluster {self._cluster} did not name a backend: {_describe(error)}."
                    ) from None
            else:
                if address in tried:
                    continue
                if not self._recent.avoid(address, self._clock()):
                    return address
                ejected = address
        if ejected:
            self._recent.use_ejected(ejected, self._clock())
            return ejected
        raise AllBackendsTried(f"Cluster {self._cluster} names no other backend.")

    async def _ask(self) -> BackendAddress:
        """Send one request. Raises ArkeError, BadClusterReply."""
        answer = await self._mesh.request(
            self._cluster, _REQUEST_BODY, timeout=_TIMEOUT, idempotent=True
        )
        return self._parse(answer)

    def _parse(self, answer: bytes) -> BackendAddress:
        try:
            address = parse_address(answer.decode("ascii").strip(), self._default_port)
        except ValueError:
            raise BadClusterReply(
                f"Cluster {self._cluster} answered the request for a backend with "
                f"{answer[:60]!r}, which is neither IP nor IP:PORT."
            ) from None
        if not self._named.allows(address):
            raise BadClusterReply(
                f"Cluster {self._cluster} answered the request for a backend with {address}, "
                "a loopback or link-local address, and has members on other machines. A member "
                "must name an address that the proxy can connect to."
            )
        self._recent.add(address, self._clock())
        return address

    def _prefetch_one(self, now: float) -> None:
        try:
            request = self._mesh.begin_request(
                self._cluster, _REQUEST_BODY, timeout=_TIMEOUT, idempotent=True
            )
        except arke.ArkeError:  # `_search` meets the same error and reports it
            self._prefetch.pause(now + _PREFETCH_PAUSE)
            return
        self._prefetch.in_flight += 1
        request.add_done_callback(self._on_answer)

    def _on_prefetched(self, request: asyncio.Future[bytes]) -> None:
        self._prefetch.in_flight -= 1
        now = self._clock()
        try:
            address = self._parse(request.result())
        except (arke.ArkeError, ProxyError):
            self._prefetch.pause(now + _PREFETCH_PAUSE)
        else:
            self._prefetch.add(address, now)


def _describe(error: arke.ArkeError) -> str:
    match error:
        case arke.RequestTimeout():
            return f"no answer within {_TIMEOUT:g} s"
        case arke.Overloaded():
            return "it is overloaded"
        case arke.RemoteError():
            return f"a member failed with {error.type}"
        case _:
            return str(error)
