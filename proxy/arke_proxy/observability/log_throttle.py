"""Warnings that clients and backends can trigger, limited in rate."""

from __future__ import annotations

from collections.abc import Hashable

from arke.program.logging import Log

_INTERVAL = 5.0  # seconds between two warnings with the same key


class WarningThrottle:
    """Logs one warning in five seconds for each key; the next one has the number suppressed."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def warn(self, key: Hashable, message: str, /, **fields: object) -> None:
        self._log.limited(key, _INTERVAL).warning(message, **fields)
