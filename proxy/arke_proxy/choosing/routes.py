"""Which cluster a request is for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from arke_proxy.choosing.chooser import Chooser


class Route(NamedTuple):
    """A cluster, and who chooses among its back ends."""

    cluster: str
    chooser: Chooser


class Routes:
    """Finds the route of a request."""

    __slots__ = ("_default",)

    def __init__(self, default: Route) -> None:
        self._default = default

    def __iter__(self) -> Iterator[Route]:
        """Every route once, for people and metrics."""
        yield self._default

    def find(self, host: bytes | None, target: bytes) -> Route | None:  # noqa: ARG002
        """Return the route of a request for this host and target; None if nothing serves it."""
        return self._default
