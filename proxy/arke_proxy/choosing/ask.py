"""Asking the cluster for every attempt, as the seed did."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

import arke
from arke_proxy.choosing.address import Address, parse_address
from arke_proxy.choosing.chooser import Outcome, Standing
from arke_proxy.choosing.suspects import Suspects
from arke_proxy.errors import AllTried, BadAnswer, NoBackEnd, NotAnswered

_SECONDS = 1.0  # for one question: a member answers it in a millisecond, or is in trouble
_PATIENCE = 4  # questions without an answer; the mesh has lost a dead member by then
_QUESTIONS = 24  # in all; of two members, the other one is missed once in 16 million searches


class Ask:
    """Asks the cluster, for each attempt, which back end to use; the mesh picks who answers.

    A member may be well while its HTTP port is not: what could not be reached a moment ago is only
    used if the cluster names nothing else.
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
        self._suspects = Suspects(clock)

    def ready(self, tried: Collection[Address], preferred: Address | None = None) -> Address | None:
        """Return the visitor's own; nothing else is known before the cluster was asked."""
        if preferred and preferred not in tried and not self._suspects.avoid(preferred):
            return preferred
        return None

    async def choose(
        self,
        tried: Collection[Address],
        preferred: Address | None = None,  # noqa: ARG002 — `ready` has looked at it
    ) -> Address:
        unanswered = 0
        last_resort = None
        for _ in range(_QUESTIONS):
            try:
                answer = await self._mesh.request(
                    self._cluster, b"ip", timeout=_SECONDS, idempotent=True
                )
            except arke.NoSuchCluster:
                raise NoBackEnd(f"Nobody serves cluster {self._cluster}.") from None
            except arke.ArkeError as error:
                if not self._mesh.attached:
                    raise NotAnswered("The relay of the proxy's machine is away.") from None
                unanswered += 1
                if unanswered == _PATIENCE or isinstance(error, arke.Overloaded):
                    raise NotAnswered(
                        f"Cluster {self._cluster}, asked for a back end, {_describe(error)}."
                    ) from None
            else:
                address = self._read(answer)
                if address in tried:
                    continue
                if not self._suspects.avoid(address):
                    return address
                last_resort = address
        if last_resort:
            return last_resort
        raise AllTried(f"Cluster {self._cluster} names no other back end.")

    def began(self, address: Address) -> None:
        """Nothing is counted."""

    def ended(self, address: Address, outcome: Outcome) -> None:
        """Nothing is counted."""

    def unreachable(self, address: Address) -> None:
        self._suspects.add(address)

    def standings(self) -> list[Standing]:
        """Nothing is known: the cluster is asked each time."""
        return []

    def _read(self, answer: bytes) -> Address:
        try:
            return parse_address(answer.decode("ascii").strip(), self._default_port)
        except ValueError:
            raise BadAnswer(
                f"Cluster {self._cluster}, asked for a back end, answered {answer[:60]!r}, "
                "which is neither IP nor IP:PORT."
            ) from None


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
