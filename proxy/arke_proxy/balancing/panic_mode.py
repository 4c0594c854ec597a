"""Panic mode: ignore ejections when more than half of a cluster's backends are ejected."""

from __future__ import annotations

from collections.abc import Sequence

from arke_proxy.balancing.rotation_entry import RotationEntry


def select_backends(backends: Sequence[RotationEntry]) -> tuple[list[RotationEntry], bool]:
    """Return the backends to use, and whether panic mode is on.

    When most backends are ejected, the cause is probably common to all, and the remaining ones
    could not carry the load. In panic mode all backends that accept connections are used, or all
    backends if none does.
    """
    healthy = [backend for backend in backends if not backend.health.ejected]
    if 2 * len(healthy) >= len(backends):
        return healthy, False
    reachable = [backend for backend in backends if backend.health.reachable]
    return reachable or list(backends), True
