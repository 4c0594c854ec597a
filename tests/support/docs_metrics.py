"""Read every metric, label and label value from the code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import NamedTuple

from arke_proxy import errors as proxy_errors
from arke_proxy.observability import metrics as proxy_metrics
from arke_proxy.observability.counters import PHASES
from arke_relay.core import membership, router
from arke_relay.discovery.records import Flaw
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


def drop_causes() -> set[str]:
    """Return the values of `cause`: keys of `drops`, and the causes that an exception carries."""
    found: set[str] = set()
    for _, node in nodes(ast.Subscript, _RELAY):
        if isinstance(node.value, ast.Attribute) and node.value.attr in {"drops", "_drops"}:
            found |= _constants(node.slice)
    for _, node in nodes(ast.FunctionDef, f"{_RELAY}/attachments/iris/tunnel.py"):
        if node.name == "__init__":
            found |= _constants(node.args.defaults[-1]) if node.args.defaults else set()
    for _, call in nodes(ast.Call, f"{_RELAY}/attachments/iris"):
        if isinstance(call.func, ast.Name) and call.func.id in _RAISED_WITH_CAUSE:
            found |= {value for arg in call.args[1:] for value in _constants(arg)}
    return found


_RAISED_WITH_CAUSE = {"Broken", "TunnelViolation", "BrokenTunnel"}


def request_outcomes() -> set[str]:
    """Return the values of `outcome`: what the router ends a request of a local program with."""
    found = {"replied", *router._OUTCOMES.values()}
    for _, call in nodes(ast.Call, f"{_RELAY}/core/router.py"):
        if isinstance(call.func, ast.Attribute) and call.func.attr == "_end":
            found |= {value for arg in call.args for value in _constants(arg)}
    return found - {"refused"}  # only for requests of peers, which are not counted here


def hint_causes() -> set[str]:
    """Return the values of `cause` of an ignored hint."""
    found = {flaw.value for flaw in Flaw} | {"table_full"}
    for _, call in nodes(ast.Call, f"{_RELAY}/discovery/mdns.py"):
        if isinstance(call.func, ast.Attribute) and call.func.attr == "_ignore":
            found |= {value for arg in call.args for value in _constants(arg)}
    for _, function in nodes(ast.FunctionDef, f"{_RELAY}/discovery/mdns.py"):
        if function.returns and ast.unparse(function.returns) == "Hint | str":
            returned = (part.value for part in ast.walk(function) if isinstance(part, ast.Return))
            constants = (value for value in returned if isinstance(value, ast.Constant))
            found |= {value for constant in constants for value in _constants(constant)}
    return found


def peer_states() -> set[str]:
    """Return the values of `state` of a peer."""
    if states := getattr(membership, "PeerState", None):
        return {state.value for state in states}
    return {
        value
        for _, node in nodes(ast.FunctionDef, f"{_RELAY}/core/membership.py")
        if node.name == "state"
        for part in ast.walk(node)
        if isinstance(part, ast.Return)
        for value in _constants(part.value)
    }


def worker_states() -> set[str]:
    """Return the values of `state` of a proxy worker."""
    return {
        value
        for _, node in nodes(ast.IfExp, "proxy/arke_proxy/observability/telemetry.py")
        for branch in (node.body, node.orelse)
        for value in _constants(branch)
        if value
    }


def failure_reasons() -> set[str]:
    """Return the values of `reason` of a failed HTTP request."""
    return {code.value for code in getattr(proxy_errors, "FailureCode", ())}


_VALUES: dict[tuple[str, str], set[str]] = {
    ("arke_requests_total", "outcome"): request_outcomes(),
    ("arke_dropped_total", "cause"): drop_causes(),
    ("arke_queue_bytes", "kind"): {"program", "peer"},
    ("arke_members", "where"): {"here", "elsewhere"},
    ("arke_peers", "state"): peer_states(),
    ("arke_hints_ignored_total", "cause"): hint_causes(),
    ("arke_proxy_failures_total", "reason"): {
        code.value for code in getattr(proxy_errors, "FailureCode", ())
    },
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
