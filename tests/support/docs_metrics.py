"""Read every metric, label and label value from the code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from arke_proxy.errors import FailureCode
from arke_proxy.observability import metrics as proxy_metrics
from arke_proxy.observability.counters import PHASES
from arke_relay.core.counters import DropCause, RequestOutcome
from arke_relay.core.membership import PeerState
from arke_relay.discovery.records import IgnoreCause
from arke_relay.metrics import names as relay_metrics
from support.docs_source import nodes

_RELAY = "relay/arke_relay"


class Metric(NamedTuple):
    """One metric; a label's values are None where the code does not bound them."""

    kind: str
    labels: dict[str, set[str] | None]
    help: str


def _constants(node: ast.AST | None) -> set[str]:
    values = (
        {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)} if node else ()
    )
    return {value for value in values if isinstance(value, str)}


def hint_causes() -> set[str]:
    """Return the values of `cause` of an ignored hint."""
    return {cause.value for cause in IgnoreCause} | {"table_full"}


def worker_states() -> set[str]:
    """Return the values of `state` of a proxy worker."""
    return {
        value
        for _, node in nodes(ast.IfExp, "proxy/arke_proxy/observability/telemetry.py")
        for branch in (node.body, node.orelse)
        for value in _constants(branch)
        if value
    }


def _values(kind: type[Enum]) -> set[str]:
    return {member.value for member in kind}


_VALUES: dict[tuple[str, str], set[str]] = {
    ("arke_requests_total", "outcome"): _values(RequestOutcome) - {RequestOutcome.REFUSED.value},
    ("arke_dropped_total", "cause"): _values(DropCause),
    ("arke_queue_bytes", "kind"): {"program", "peer"},
    ("arke_members", "where"): {"here", "elsewhere"},
    ("arke_peers", "state"): _values(PeerState),
    ("arke_hints_ignored_total", "cause"): hint_causes(),
    ("arke_proxy_failures_total", "reason"): _values(FailureCode),
    ("arke_proxy_body_bytes_total", "direction"): {"in", "out"},
    ("arke_proxy_workers", "state"): worker_states(),
    ("arke_proxy_phase_seconds", "phase"): set(PHASES),
}


def _metrics() -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    for metric in relay_metrics.METRICS:
        yield metric.name, metric.kind.value, metric.labels, metric.help
    families = proxy_metrics._Collector({"counters": {}, "gauges": {}}).collect()
    for family in families:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = tuple(family._labelnames)
        yield name, family.type, labels, family.documentation


METRICS: dict[str, Metric] = {
    name: Metric(kind, {label: _VALUES.get((name, label)) for label in labels}, about)
    for name, kind, labels, about in _metrics()
}
