"""Every log line that a guide names is one that the code writes, and each has a meaning."""

from __future__ import annotations

import re

import pytest

from support.docs_logs import events
from support.docs_pages import DOCS, rows
from support.docs_reference import MISSING

EVENTS = {event.text for package in ("relay", "proxy", "sdk") for event in events(package)}


def log_lines() -> list[str]:
    """Return the log lines in the tables of the troubleshooting page under that heading."""
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    found: list[str] = []
    for table in re.findall(r"^\| log line.*(?:\n\|.*)+", text, re.MULTILINE):
        for cells in rows(table):
            found += re.findall(r"`([^`]+)`", cells[0])
    return found


@pytest.mark.parametrize("line", log_lines())
def test_log_lines_of_troubleshooting_exist(line: str) -> None:
    event = re.split(r" …|: …| \w+=", line)[0]
    assert any(text.startswith(event) for text in EVENTS)


def test_events_worth_an_alert_exist() -> None:
    pages = [DOCS / "how-to" / "prometheus.md", DOCS / "metrics-and-logs.md"]
    for page in pages:
        match = re.search(r"[Aa]lert on (?:these log events: )?(.*)", page.read_text("utf-8"))
        assert match
        named = re.findall(r"`([^`]+)`", match[1])
        assert named
        assert set(named) <= EVENTS


def test_every_event_is_described() -> None:
    assert MISSING not in (DOCS / "metrics-and-logs.md").read_text(encoding="utf-8")
    assert len(EVENTS) > 30
