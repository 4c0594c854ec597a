"""The numbers of all workers together: what has been counted stays counted when one leaves.

A report is `{"counters": {key: number}, "gauges": {key: number}, "backends": […]}`. Keys are the
workers' own affair.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Report = Mapping[str, Any]
Numbers = dict[str, float]

_MOST = 50_000  # keys kept of workers that have left


class Aggregate:
    """Keeps the last report of each worker, and the sums of those that have left.

    A sum that fell when a worker leaves would look to Prometheus like a restart, and its rates
    would jump.
    """

    def __init__(self) -> None:
        self._reports: dict[int, Report] = {}
        self._departed: Numbers = {}

    def report(self, worker: int, report: Report) -> None:
        self._reports[worker] = report

    def left(self, worker: int) -> None:
        """Keep the counters of a worker that is gone; its gauges went with it."""
        report = self._reports.pop(worker, None)
        if report:
            counters: Numbers = report["counters"]
            known = self._departed
            if len(known) >= _MOST:
                counters = {key: value for key, value in counters.items() if key in known}
            _add(known, counters)

    def sum(self) -> dict[str, Any]:
        """Return one report for all; of the backends, each worker's view under its number."""
        return {
            "counters": _sum([self._departed, *(r["counters"] for r in self._reports.values())]),
            "gauges": _sum(r["gauges"] for r in self._reports.values()),
            "backends": {
                str(worker): report["backends"] for worker, report in self._reports.items()
            },
        }


def _sum(parts: Iterable[Numbers]) -> Numbers:
    total: Numbers = {}
    for part in parts:
        _add(total, part)
    return total


def _add(total: Numbers, part: Numbers) -> None:
    for key, value in part.items():
        total[key] = total.get(key, 0) + value
