"""The alert rules and the dashboard are valid, and name metrics, labels and values that exist."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from support.docs_metrics import METRICS
from support.docs_pages import DOCS
from support.needs import require_tool

FILES = DOCS / "how-to" / "files"
ALERTS = FILES / "arke-alerts.yml"
DASHBOARD = FILES / "arke-dashboard.json"

SELECTOR = re.compile(r"\b(arke_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
BUILT_IN_LABELS = {"instance", "job", "le"}
"""Labels that Prometheus adds to each target, and that of a histogram's buckets."""


def texts_with_expressions() -> list[str]:
    """Return the expression of each panel, and the whole file of alerts."""
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    shown = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return [*shown, ALERTS.read_text(encoding="utf-8")]


@pytest.mark.parametrize("expression", texts_with_expressions())
def test_expressions_name_existing_metrics_and_label_values(expression: str) -> None:
    for name, matchers in SELECTOR.findall(expression):
        metric = METRICS[re.sub(r"_(bucket|sum|count)$", "", name)]
        for label, operator, value in MATCHER.findall(matchers):
            known = metric.labels[label]
            if known is not None and "~" not in operator:
                assert value in known
            elif known is not None:
                pattern = re.compile(value)
                assert any(pattern.fullmatch(each) for each in known)


@pytest.mark.parametrize("expression", texts_with_expressions())
def test_groupings_name_existing_labels(expression: str) -> None:
    labels = {label for metric in METRICS.values() for label in metric.labels} | BUILT_IN_LABELS
    for group in re.findall(r"\bby \(([^)]*)\)", expression):
        assert {label.strip() for label in group.split(",")} <= labels


def test_dashboard_legends_use_labels_of_their_query() -> None:
    for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]:
        for target in panel["targets"]:
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                assert label in target["expr"], panel["title"]


def test_every_alert_is_described_in_the_guide() -> None:
    guide = (DOCS / "how-to" / "prometheus.md").read_text(encoding="utf-8")
    for alert in re.findall(r"- alert: (\w+)", ALERTS.read_text(encoding="utf-8")):
        assert f"`{alert}`" in guide


@pytest.mark.parametrize(
    "command", [("rules", "arke-alerts.yml"), ("config", "prometheus.yml")], ids=lambda one: one[0]
)
def test_promtool_accepts_the_files(command: tuple[str, str]) -> None:
    kind, file = command
    promtool = require_tool("promtool", "prometheus")
    subprocess.run([promtool, "check", kind, file], cwd=FILES, check=True)


@pytest.mark.parametrize(
    ("name", "label"),
    [(n, label) for n, m in METRICS.items() for label, values in m.labels.items() if values],
)
def test_every_label_value_is_described(name: str, label: str) -> None:
    page = (DOCS / "metrics-and-logs.md").read_text(encoding="utf-8")
    for value in METRICS[name].labels[label] or ():
        assert f"`{value}`" in page
