"""Backends known beforehand, for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Iterable

from arke_proxy.backends.address import BackendAddress
from arke_proxy.balancing.rotation import Rotation, Warn


class StaticBalancer(Rotation):
    """A rotation that nobody joins or leaves."""

    def __init__(self, addresses: Iterable[BackendAddress], say: Warn | None = None) -> None:
        super().__init__("static", say or _say_nothing)
        for address in addresses:
            self.add(address)


def _say_nothing(about: object, sentence: str) -> None:
    pass
