"""The status document of a node, which `arke status` shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from arke_relay.core.membership import Membership
from arke_relay.core.message_core import MessageCore

_MAX_NAMES = 10_000
"""Limit for clusters, and for topics. At the limit the document has some megabytes."""


class Status:
    """Builds the document. `tick`, called once a second, computes rates from totals."""

    def __init__(
        self,
        core: MessageCore,
        membership: Membership,
        network: str,
        version: str,
        clock: Callable[[], float],
    ) -> None:
        self._core = core
        self._membership = membership
        self._network = network
        self._version = version
        self._clock = clock
        self._started = self._ticked = clock()
        self._totals: dict[str, int] = {}
        self._rates: dict[str, float] = {}

    def tick(self) -> None:
        now = self._clock()
        seconds = max(now - self._ticked, 0.001)
        self._ticked = now
        totals = {
            name: sum(candidate.answered for candidate in cluster.candidates.values())
            for name, cluster in self._core.directory.clusters.items()
        }
        self._rates = {
            name: max(0, total - self._totals.get(name, total)) / seconds
            for name, total in totals.items()
        }
        self._totals = totals

    def document(self) -> bytes:
        """The JSON document, in UTF-8."""
        return json.dumps(
            {
                "node": {
                    "id": self._core.node.id,
                    "address": self._core.node.address,
                    "network": self._network,
                    "version": self._version,
                    "uptime_s": round(self._clock() - self._started, 1),
                },
                "peers": self._peers(),
                "clusters": self._clusters(),
                "topics": self._topics(),
                "programs": len(self._core.programs.by_number),
            }
        ).encode()

    def _peers(self) -> list[dict[str, Any]]:
        now = self._clock()
        members: dict[str, int] = {}
        for cluster in self._core.directory.clusters.values():
            for endpoint, candidate in cluster.candidates.items():
                node = getattr(endpoint, "node", "")
                members[node] = members.get(node, 0) + len(candidate.members)
        return [
            {
                "id": neighbour.node,
                "address": neighbour.address,
                "state": neighbour.state.value,
                "heard_ms": round(neighbour.liveness.silence(now) * 1000),
                "members": members.get(neighbour.node, 0),
            }
            for neighbour in self._membership.neighbours.values()
        ]

    def _clusters(self) -> dict[str, dict[str, Any]]:
        shown = {}
        for name, cluster in list(self._core.directory.clusters.items())[:_MAX_NAMES]:
            here = len(cluster.here)
            shown[name] = {
                "here": here,
                "elsewhere": len(cluster.draws) - here,
                "requests": self._totals.get(name, 0),
                "rate": round(self._rates.get(name, 0.0), 1),
            }
        return shown

    def _topics(self) -> dict[str, dict[str, int]]:
        shown = {}
        for name, endpoints in list(self._core.directory.topics.items())[:_MAX_NAMES]:
            elsewhere = sum(endpoint.is_peer for endpoint in endpoints)
            shown[name] = {"here": len(endpoints) - elsewhere, "elsewhere": elsewhere}
        return shown
