"""Render the totals of all workers as Prometheus metrics. Slow to import (60 ms)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry
from prometheus_client import generate_latest as generate
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from arke_proxy.observability.counters import BOUNDS, PHASES, SEPARATOR

CONTENT_TYPE = CONTENT_TYPE_LATEST

_COUNTERS = {
    "requests": (
        "arke_proxy_requests_total",
        "Requests by cluster, status code (0: no response) and last backend.",
        ("cluster", "code", "backend"),
    ),
    "failures": (
        "arke_proxy_failures_total",
        "Requests without a complete response from a backend, by reason.",
        ("reason",),
    ),
    "retries": ("arke_proxy_retries_total", "Retries of requests.", ()),
    "bytes": (
        "arke_proxy_body_bytes_total",
        "Bytes of request bodies (in) and response bodies (out).",
        ("direction",),
    ),
    "dropped": (
        "arke_proxy_access_log_dropped_total",
        "Access log lines lost because the disk or pipe was full, slow or failed.",
        (),
    ),
}
_GAUGES = {
    "connections": ("arke_proxy_connections", "Open client connections.", ()),
    "workers": ("arke_proxy_workers", "Worker processes by state.", ("state",)),
}

Labelled = dict[tuple[str, ...], float]


def page(totals: Mapping[str, Any]) -> bytes:
    """Render the result of `Aggregate.totals`."""
    registry = CollectorRegistry()
    registry.register(_Collector(totals))
    return generate(registry)


class _Collector(Collector):
    def __init__(self, totals: Mapping[str, Any]) -> None:
        self._counters = _by_metric(totals["counters"])
        self._gauges = _by_metric(totals["gauges"])

    def collect(self) -> Iterator[Family]:
        for key, (name, text, labels) in _COUNTERS.items():
            family = CounterMetricFamily(name, text, labels=labels)
            for values, count in self._counters[key].items():
                family.add_metric(values, count)
            yield family
        for key, (name, text, labels) in _GAUGES.items():
            gauge = GaugeMetricFamily(name, text, labels=labels)
            for values, number in self._gauges[key].items():
                gauge.add_metric(values, number)
            yield gauge
        yield self._phases()

    def _phases(self) -> Family:
        family = HistogramMetricFamily(
            "arke_proxy_phase_seconds",
            "Time of each phase of a request, and of the whole request.",
            labels=("phase",),
        )
        bounds = [*map(str, BOUNDS), "+Inf"]
        counts, sums = self._counters["phase"], self._counters["phase_sum"]
        for phase in PHASES:
            each = [counts.get((phase, str(bucket)), 0.0) for bucket in range(len(bounds))]
            buckets = list(zip(bounds, accumulate(each), strict=True))
            family.add_metric((phase,), buckets, sums.get((phase,), 0.0))
        return family


def _by_metric(numbers: Mapping[str, float]) -> defaultdict[str, Labelled]:
    metrics: defaultdict[str, Labelled] = defaultdict(dict)
    for key, value in numbers.items():
        # A lone surrogate cannot be encoded as UTF-8; it would make the whole page fail.
        metric, *labels = key.encode(errors="replace").decode().split(SEPARATOR)
        metrics[metric][tuple(labels)] = value
    return metrics
