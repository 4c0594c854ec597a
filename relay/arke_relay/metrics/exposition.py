"""Numbers as Prometheus reads them. Importing this takes some 60 ms: only `-metrics` does."""

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

from arke_relay.metrics.names import METRICS, Distribution, Kind, Metric, Snap

CONTENT_TYPE = CONTENT_TYPE_LATEST
OTHER = "(other)"
"""The label value of all clusters beyond the first 200: nobody's names may flood a monitor."""

_MOST = 200
_LABEL = 128  # characters


class Exposition:
    """Renders whatever `snap` returns at that moment, and the process's memory, time and files."""

    def __init__(self, snap: Snap) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Collector(snap))
        ProcessCollector(registry=self._registry)

    def render(self) -> bytes:
        """Return the page. Raises ValueError for a name or labels that are not in METRICS."""
        return generate(self._registry)


class _Collector(Collector):
    def __init__(self, snap: Snap) -> None:
        self._snap = snap

    def collect(self) -> Iterator[Family]:
        snapshot = self._snap()
        if unknown := snapshot.keys() - {metric.name for metric in METRICS}:
            raise ValueError(f"metrics nobody has described: {', '.join(sorted(unknown))}")
        for metric in METRICS:
            if metric.name in snapshot:
                yield _family(metric, snapshot[metric.name])


def _family(metric: Metric, values: Mapping[tuple[str, ...], float | Distribution]) -> Family:
    if metric.kind is Kind.HISTOGRAM:
        (distribution,) = values.values()
        assert isinstance(distribution, Distribution)
        return _histogram(metric, distribution)
    kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
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
            if len(firsts) < _MOST:
                firsts.add(shown[0])
            else:
                shown = (OTHER, *shown[1:])
        bounded[shown] = bounded.get(shown, 0.0) + value
    return bounded


def _label(value: str) -> str:
    # A lone surrogate has no UTF-8, and would cost the whole page.
    return value[:_LABEL].encode(errors="replace").decode()
