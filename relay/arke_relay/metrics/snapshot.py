"""Collect the values of the relay's metrics."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping
from typing import Any

from arke_relay.core.counters import BUCKETS
from arke_relay.core.membership import Membership
from arke_relay.core.message_core import MessageCore
from arke_relay.metrics.names import Distribution, Snapshot


def snapshot(
    core: MessageCore,
    membership: Membership,
    queued: Mapping[str, int],
    ignored: Mapping[str, int],
    version: str,
) -> Snapshot:
    """Return all metrics. `queued`: bytes by kind of receiver; `ignored`: hints by cause."""
    counters = core.counters
    members: dict[tuple[str, ...], float] = {}
    for name, cluster in core.directory.clusters.items():
        members[name, "here"] = len(cluster.here)
        members[name, "elsewhere"] = len(cluster.draws) - len(cluster.here)
    states = Counter(neighbour.state for neighbour in membership.neighbours.values())
    return {
        "arke_build_info": {(version, platform.python_version()): 1},
        "arke_requests_total": _by_label(counters.outcomes),
        "arke_request_seconds": {(): Distribution(BUCKETS, counters.latency, counters.latency_sum)},
        "arke_retries_total": {(): counters.retries},
        "arke_broadcasts_total": {(): counters.broadcasts},
        "arke_published_total": {(): counters.published},
        "arke_tunnels_total": {(): counters.tunnels},
        "arke_tunnels": {(): sum(len(p.tunnels) for p in core.programs.by_number.values())},
        "arke_dropped_total": _by_label(counters.drops),
        "arke_queue_bytes": _by_label(queued),
        "arke_programs": {(): len(core.programs.by_number)},
        "arke_members": members,
        "arke_peers": _by_label(states),
        "arke_hints_ignored_total": _by_label(ignored),
    }


def _by_label(counts: Mapping[Any, int]) -> dict[tuple[str, ...], float]:
    return {(str(label),): count for label, count in counts.items()}
