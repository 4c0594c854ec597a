"""Count the operations of a program and their outcomes, and report those that hang."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import arke

MARGIN = 5.0
"""Seconds that an operation may take beyond its limit before it counts as hung."""

_POLL = 0.25
_MAX_LINES = 10  # of a kind


class Operation:
    """A running operation, which has to end within its limit."""

    __slots__ = ("_limit", "done", "hung", "kind", "left", "started")

    def __init__(self, kind: str, limit: float) -> None:
        self.kind = kind
        self.started = time.monotonic()
        self._limit = limit
        self.hung = False
        self.done = False
        """It has succeeded."""
        self.restart_limit()

    def restart_limit(self) -> None:
        """Start the time limit again, after a part of the operation has succeeded."""
        self.left = self._limit + MARGIN


class Operations:
    """The operations of one program: the running ones, and counts of all."""

    def __init__(self) -> None:
        self._started: Counter[str] = Counter()
        self._answered: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._hung: Counter[str] = Counter()
        self._wrong: Counter[str] = Counter()
        self._open: set[Operation] = set()

    @contextmanager
    def track(self, kind: str, limit: float) -> Iterator[Operation]:
        """Count the outcome of the block. An exception is counted, not raised."""
        operation = Operation(kind, limit)
        self._started[kind] += 1
        self._open.add(operation)
        try:
            yield operation
        except arke.ArkeError as error:
            self._failed[f"{kind} {type(error).__name__}"] += 1
        except Exception as error:  # noqa: BLE001 — it is counted as wrong, which fails the soak
            self._failed[f"{kind} {type(error).__name__}"] += 1
            self.wrong(kind, f"it raised {error!r}")
        else:
            operation.done = True
            self._answered[kind] += 1
        finally:
            self._open.discard(operation)

    def wrong(self, kind: str, text: str) -> None:
        """Count and print a wrong result."""
        self._wrong[kind] += 1
        if self._wrong[kind] <= _MAX_LINES:
            _print("wrong", kind, text)

    async def watch(self) -> None:
        """Find hanging operations, until cancelled.

        A check that runs late counts as one interval, because the program may have been paused.
        """
        while True:
            await asyncio.sleep(_POLL)
            for operation in self._open:
                operation.left -= _POLL
                if operation.left < 0 and not operation.hung:
                    operation.hung = True
                    self._hung[operation.kind] += 1
                    age = time.monotonic() - operation.started
                    if self._hung[operation.kind] <= _MAX_LINES:
                        _print("hung", operation.kind, f"still running after {age:.1f} s")

    def report(self) -> dict[str, Any]:
        """Return all counts. `oldest` is the monotonic start time of the oldest open operation."""
        now = time.monotonic()
        return {
            "started": self._started,
            "answered": self._answered,
            "failed": self._failed,
            "hung": self._hung,
            "wrong": self._wrong,
            "open": Counter(operation.kind for operation in self._open),
            "oldest": min((operation.started for operation in self._open), default=now),
        }


def _print(what: str, kind: str, text: str) -> None:
    print(f"{what}: {kind}: {text[:300]}", flush=True)  # noqa: T201
