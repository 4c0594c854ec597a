"""Every metric there is. The relay hands in numbers under these names; nothing else is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What Prometheus makes of a number."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One family of series. A histogram has no labels."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    """Only the first may have values that we did not write; see `exposition` for their bound."""
    help: str


@dataclass(frozen=True, slots=True)
class Distribution:
    """The value of a histogram."""

    bounds: Sequence[float]
    """Inclusive upper bounds of all buckets but the last, which has none."""
    counts: Sequence[int]
    """How many in each bucket alone: one more than there are bounds."""
    sum: float


Snapshot = Mapping[str, Mapping[tuple[str, ...], float | Distribution]]
"""Name → label values, in the metric's order → value. `{"arke_programs": {(): 3}}`."""

Snap = Callable[[], Snapshot]

METRICS = (
    Metric("arke_build_info", Kind.GAUGE, ("version", "python"), "Always 1."),
    Metric(
        "arke_requests_total",
        Kind.COUNTER,
        ("outcome",),
        "Requests of programs attached here, by how they ended.",
    ),
    Metric(
        "arke_request_seconds",
        Kind.HISTOGRAM,
        (),
        "From a request's arrival at this relay to its answer, those answered.",
    ),
    Metric(
        "arke_retries_total", Kind.COUNTER, (), "Requests sent again, to another member, after all."
    ),
    Metric("arke_broadcasts_total", Kind.COUNTER, (), "Broadcasts of programs attached here."),
    Metric("arke_published_total", Kind.COUNTER, (), "Events published by programs attached here."),
    Metric("arke_tunnels_total", Kind.COUNTER, (), "Tunnels opened through this relay."),
    Metric(
        "arke_tunnels", Kind.GAUGE, (), "Ends of open tunnels that programs attached here have."
    ),
    Metric(
        "arke_dropped_total",
        Kind.COUNTER,
        ("cause",),
        "Messages dropped, by cause. Each kind of drop is meant to be rare.",
    ),
    Metric(
        "arke_queue_bytes",
        Kind.GAUGE,
        ("kind",),
        "Bytes waiting to be sent, by whom they wait for: program or peer.",
    ),
    Metric("arke_programs", Kind.GAUGE, (), "Programs attached here."),
    Metric(
        "arke_members",
        Kind.GAUGE,
        ("cluster", "where"),
        "Members of a cluster as this relay knows them: here or elsewhere.",
    ),
    Metric("arke_peers", Kind.GAUGE, ("state",), "Other relays of the network, by state."),
    Metric(
        "arke_hints_ignored_total",
        Kind.COUNTER,
        ("cause",),
        "mDNS records that are not used as hints to peers, by cause.",
    ),
)
