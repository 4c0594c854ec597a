"""Render metrics in the Prometheus text format.

Importing it takes about 60 ms, so the relay imports it only for `-metrics`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector
from prometheus_client import generate_latest as generate
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from arke_relay.metrics.names import METRICS, Distribution, Metric, MetricKind, TakeSnapshot

CONTENT_TYPE = CONTENT_TYPE_LATEST
OTHER = "(other)"
"""Label value of all clusters after the first 200, so that programs cannot flood a monitor."""

_MAX_LABEL_VALUES = 200
_MAX_LABEL_LENGTH = 128  # characters


class Exposition:
    """Renders the metrics that `take_snapshot` returns, and those of the process."""

    def __init__(self, take_snapshot: TakeSnapshot) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_MetricsCollector(take_snapshot))
        ProcessCollector(registry=self._registry)

    def render(self) -> bytes:
        """Return the page. Raises ValueError for a metric or labels that METRICS does not list."""
        return generate(self._registry)


class _MetricsCollector(Collector):
    def __init__(self, take_snapshot: TakeSnapshot) -> None:
        self._take_snapshot = take_snapshot

    def collect(self) -> Iterator[Family]:
        snapshot = self._take_snapshot()
        if unknown := snapshot.keys() - {metric.name for metric in METRICS}:
            raise ValueError(f"metrics without a description: {', '.join(sorted(unknown))}")
        for metric in METRICS:
            if metric.name in snapshot:
                yield _family(metric, snapshot[metric.name])


def _family(metric: Metric, values: Mapping[tuple[str, ...], float | Distribution]) -> Family:
    if metric.kind is MetricKind.HISTOGRAM:
        (distribution,) = values.values()
        assert isinstance(distribution, Distribution)
        return _histogram(metric, distribution)
    kind = CounterMetricFamily if metric.kind is MetricKind.COUNTER else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels)
    for labels, value in _bounded(metric, values).items():
        family.add_metric(labels, value)
    return family


def _histogram(metric: Metric, value: Distribution) -> Family:
    family = HistogramMetricFamily(metric.name, metric.help)
    bounds = [*map(str, value.bounds), "+Inf"]
    buckets = list(zip(bounds, map(float, accumulate(value.counts)), strict=True))
    family.add_metric((), buckets, value.sum)
    return family


def _bounded(
    metric: Metric, values: Mapping[tuple[str, ...], float | Distribution]
) -> dict[tuple[str, ...], float]:
    bounded: dict[tuple[str, ...], float] = {}
    firsts: set[str] = set()
    for labels, value in values.items():
        if len(labels) != len(metric.labels):
            raise ValueError(f"{metric.name} has the labels {metric.labels}, not {labels}")
        assert not isinstance(value, Distribution)
        shown = tuple(_label(label) for label in labels)
        if shown and shown[0] not in firsts:
            if len(firsts) < _MAX_LABEL_VALUES:
                firsts.add(shown[0])
            else:
                shown = (OTHER, *shown[1:])
        bounded[shown] = bounded.get(shown, 0.0) + value
    return bounded


def _label(value: str) -> str:
    # A lone surrogate cannot be encoded in UTF-8, and would fail the whole page.
    return value[:_MAX_LABEL_LENGTH].encode(errors="replace").decode()
