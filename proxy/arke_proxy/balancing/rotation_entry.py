"""What the rotation knows of one backend."""

from __future__ import annotations

from enum import Enum, auto

from arke_proxy.backends.address import BackendAddress
from arke_proxy.balancing.passive_health import BackendHealth


class Presence(Enum):
    """Whether members of the cluster still publish a backend."""

    PRESENT = auto()
    DEPARTED = auto()  # its member left; it may still be picked, but no idle connection is kept
    DRAINING = auto()  # removed; only requests that have started remain


class RotationEntry:
    """One backend: its health, its weight and its outstanding requests."""

    __slots__ = (
        "address",
        "effective_weight",
        "failed_checks",
        "health",
        "in_use",
        "outstanding",
        "presence",
        "since",
        "weight",
    )

    def __init__(self, address: BackendAddress, weight: float, now: float) -> None:
        self.address = address
        self.weight = weight
        self.effective_weight = weight  # lower during slow start
        self.since = now  # start of its slow start
        self.outstanding = 0  # requests of this worker
        self.health = BackendHealth()
        self.failed_checks = 0  # in a row
        self.in_use = False  # ordinary requests may be sent to it
        self.presence = Presence.PRESENT
