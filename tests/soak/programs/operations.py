"""Counts what a program began, and how each of it ended; tells what does not end at all."""

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

_LOOK = 0.25
_MOST_LINES = 10  # of a kind


class Operation:
    """One thing begun, which has to end within its limit."""

    __slots__ = ("_limit", "began", "done", "hung", "kind", "left")

    def __init__(self, kind: str, limit: float) -> None:
        self.kind = kind
        self.began = time.monotonic()
        self._limit = limit
        self.hung = False
        self.done = False
        """It ended well."""
        self.moved()

    def moved(self) -> None:
        """A part of it has ended in time: the next one has as long."""
        self.left = self._limit + MARGIN


class Operations:
    """All of one program's. Only what is open is kept; the rest is numbers."""

    def __init__(self) -> None:
        self._started: Counter[str] = Counter()
        self._answered: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._hung: Counter[str] = Counter()
        self._wrong: Counter[str] = Counter()
        self._open: set[Operation] = set()

    @contextmanager
    def one(self, kind: str, limit: float) -> Iterator[Operation]:
        """Count what happens inside. A typed error ends the block and is counted, not raised."""
        operation = Operation(kind, limit)
        self._started[kind] += 1
        self._open.add(operation)
        try:
            yield operation
        except arke.ArkeError as error:
            self._failed[f"{kind} {type(error).__name__}"] += 1
        except Exception as error:  # noqa: BLE001 — it is counted, and ends the soak as wrong
            self._failed[f"{kind} {type(error).__name__}"] += 1
            self.wrong(kind, f"it raised {error!r}")
        else:
            operation.done = True
            self._answered[kind] += 1
        finally:
            self._open.discard(operation)

    def wrong(self, kind: str, text: str) -> None:
        """Something came that must not."""
        self._wrong[kind] += 1
        if self._wrong[kind] <= _MOST_LINES:
            _say("wrong", kind, text)

    async def watch(self) -> None:
        """Look for what hangs, for ever. A look that comes late counts as one look."""
        while True:
            await asyncio.sleep(_LOOK)
            for operation in self._open:
                operation.left -= _LOOK
                if operation.left < 0 and not operation.hung:
                    operation.hung = True
                    self._hung[operation.kind] += 1
                    age = time.monotonic() - operation.began
                    if self._hung[operation.kind] <= _MOST_LINES:
                        _say("hung", operation.kind, f"it still goes on after {age:.1f} s")

    def report(self) -> dict[str, Any]:
        """`oldest` is when the oldest operation began that is open, by the monotonic clock."""
        now = time.monotonic()
        return {
            "started": self._started,
            "answered": self._answered,
            "failed": self._failed,
            "hung": self._hung,
            "wrong": self._wrong,
            "open": Counter(operation.kind for operation in self._open),
            "oldest": min((operation.began for operation in self._open), default=now),
        }


def _say(what: str, kind: str, text: str) -> None:
    print(f"{what}: {kind}: {text[:300]}", flush=True)  # noqa: T201
