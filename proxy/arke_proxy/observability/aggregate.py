"""The aggregate of all workers: sums of their counters, which never fall when a worker exits.

A report is `{"counters": {key: number}, "gauges": {key: number}, "backends": […]}`. The keys are
those of `counters`; the master does not interpret them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Report = Mapping[str, Any]
Numbers = dict[str, float]

_MAX_EXITED_KEYS = 50_000  # kept of workers that have exited


class Aggregate:
    """Keeps the last report of each worker, and the sums of the workers that have exited.

    If the sums fell when a worker exits, Prometheus would take that for a counter reset.
    """

    def __init__(self) -> None:
        self._reports: dict[int, Report] = {}  # by process id
        self._exited: Numbers = {}

    def report(self, worker: int, report: Report) -> None:
        self._reports[worker] = report

    def worker_exited(self, worker: int) -> None:
        """Keep the counters of a worker that has exited; drop its gauges."""
        report = self._reports.pop(worker, None)
        if report:
            counters: Numbers = report["counters"]
            exited = self._exited
            if len(exited) >= _MAX_EXITED_KEYS:
                counters = {key: value for key, value in counters.items() if key in exited}
            _add(exited, counters)

    def totals(self) -> dict[str, Any]:
        """Return the sums of all workers, and each worker's backends under its process id."""
        return {
            "counters": _sum([self._exited, *(r["counters"] for r in self._reports.values())]),
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
