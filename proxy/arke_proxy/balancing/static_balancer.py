"""`-choose static`: balance over a fixed list of backends, for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from arke_proxy.backends.address import BackendAddress
from arke_proxy.balancing.balancer import Warn
from arke_proxy.balancing.rotation import Rotation


class StaticBalancer(Rotation):
    """A rotation whose backends never change."""

    def __init__(self, addresses: Iterable[BackendAddress], warn: Warn | None = None) -> None:
        super().__init__("static", warn or _discard)
        for address in addresses:
            self.add(address)


def _discard(key: Hashable, message: str, /, **fields: object) -> None:
    pass
