"""The list of all metrics. The page shows no other metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum


class MetricKind(Enum):
    """The Prometheus type of a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One family of series. A histogram has no labels."""

    name: str
    kind: MetricKind
    labels: tuple[str, ...]
    """Only the first label may have values from programs; `exposition` bounds them."""
    help: str


@dataclass(frozen=True, slots=True)
class Distribution:
    """The value of a histogram."""

    bounds: Sequence[float]
    """Inclusive upper bounds of the buckets. The last bucket has no bound."""
    counts: Sequence[int]
    """Values in each bucket, not cumulative: one more than bounds."""
    sum: float


Snapshot = Mapping[str, Mapping[tuple[str, ...], float | Distribution]]
"""Name → label values, in the metric's order → value. `{"arke_programs": {(): 3}}`."""

TakeSnapshot = Callable[[], Snapshot]

METRICS = (
    Metric("arke_build_info", MetricKind.GAUGE, ("version", "python"), "Always 1."),
    Metric(
        "arke_requests_total",
        MetricKind.COUNTER,
        ("outcome",),
        "Requests of programs attached here, by outcome.",
    ),
    Metric(
        "arke_request_seconds",
        MetricKind.HISTOGRAM,
        (),
        "Time from a request's arrival at this relay to its reply.",
    ),
    Metric("arke_retries_total", MetricKind.COUNTER, (), "Attempts to send a request again."),
    Metric(
        "arke_broadcasts_total", MetricKind.COUNTER, (), "Broadcasts of programs attached here."
    ),
    Metric(
        "arke_published_total",
        MetricKind.COUNTER,
        (),
        "Events published by programs attached here.",
    ),
    Metric("arke_tunnels_total", MetricKind.COUNTER, (), "Tunnels opened through this relay."),
    Metric("arke_tunnels", MetricKind.GAUGE, (), "Open tunnel ends of programs attached here."),
    Metric(
        "arke_dropped_total",
        MetricKind.COUNTER,
        ("cause",),
        "Messages dropped, by cause. Drops should be rare.",
    ),
    Metric(
        "arke_queue_bytes",
        MetricKind.GAUGE,
        ("kind",),
        "Bytes waiting to be sent, by receiver: program or peer.",
    ),
    Metric("arke_programs", MetricKind.GAUGE, (), "Programs attached here."),
    Metric(
        "arke_members",
        MetricKind.GAUGE,
        ("cluster", "where"),
        "Members of a cluster, on this node (here) or another (elsewhere).",
    ),
    Metric("arke_peers", MetricKind.GAUGE, ("state",), "Other relays of the network, by state."),
    Metric(
        "arke_hints_ignored_total",
        MetricKind.COUNTER,
        ("cause",),
        "mDNS records that were not used as hints, by cause.",
    ),
)
