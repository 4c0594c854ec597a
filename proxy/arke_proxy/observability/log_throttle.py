"""Warnings that cannot flood the log."""

from __future__ import annotations

import logging
from collections.abc import Callable

_EVERY = 5.0  # seconds between two warnings about one thing
_MOST = 1000  # things remembered
_OF_THE_LOOP = "SSL connection is closed"


class WarningThrottle:
    """Logs one warning in five seconds for each `about`, and says how many it kept back."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float]) -> None:
        self._log = log
        self._clock = clock
        self._last: dict[object, tuple[float, int]] = {}  # when it was logged, how many since

    def warn(self, about: object, sentence: str) -> None:
        now = self._clock()
        logged, kept_back = self._last.get(about, (-_EVERY, 0))
        if now - logged < _EVERY:
            self._last[about] = (logged, kept_back + 1)
            return
        if len(self._last) >= _MOST:
            self._last.clear()
        self._last[about] = (now, 0)
        if kept_back:
            sentence = f"{sentence} (and {kept_back} more like it)"
        self._log.warning(sentence)


def quieten(log: logging.Logger) -> None:
    """Keep from the loop's `log` what any client by TLS can have it say as often as it likes.

    That is about each piece written to one that has just left. Who writes it cannot ask: until the
    loop tells that the connection is lost, its transport says that it is open.
    """
    log.addFilter(lambda record: record.msg != _OF_THE_LOOP)
