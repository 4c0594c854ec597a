"""Structured logging for every command: one line per event, as text or JSON.

    log.info("peer admitted", node=node, address=address)

    2026-11-22T03:04:05.678Z info  peer admitted node=3f2a… address=192.168.56.102
    {"time": "2026-11-22T03:04:05.678Z", "level": "info", "message": "peer admitted", "node": …}

The message is a constant; each value that varies is a field. `log_format` escapes and shortens
field values, so that remote input cannot forge a line. `Log.limited` limits the rate of lines that
remote input can trigger.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Hashable, Mapping
from typing import Any, TextIO

from arke.program import flags
from arke.program.log_format import JsonFormatter, TextFormatter
from arke.program.log_throttle import LogThrottle

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}
FORMATS = ("text", "json")

_SDK = "arke"  # the SDK's logger


class Log:
    """Writes events to a standard logger. `fields` are added to each of them."""

    def __init__(
        self,
        logger: logging.Logger,
        throttle: LogThrottle | None = None,
        fields: Mapping[str, object] | None = None,
    ) -> None:
        self._logger = logger
        self._throttle = throttle or LogThrottle()
        self._fields = fields or {}

    def debug(self, message: str, /, **fields: object) -> None:
        self._write(logging.DEBUG, message, fields)

    def info(self, message: str, /, **fields: object) -> None:
        self._write(logging.INFO, message, fields)

    def warning(self, message: str, /, **fields: object) -> None:
        self._write(logging.WARNING, message, fields)

    def error(self, message: str, /, **fields: object) -> None:
        self._write(logging.ERROR, message, fields)

    def exception(self, message: str, /, **fields: object) -> None:
        """Log the exception that is being handled, with its traceback."""
        self._write(logging.ERROR, message, fields, sys.exception())

    def limited(self, key: Hashable, seconds: float, most: int = 1) -> Log:
        """Return the log for an event whose rate is limited, for events that remote input triggers.

        At most `most` events of one `key` are written in `seconds`; the next one that is written
        has a field `suppressed`: the number of events that were not.
        """
        suppressed = self._throttle.admit(key, seconds, most)
        if suppressed is None:
            return _DISABLED
        if not suppressed:
            return self
        return Log(self._logger, self._throttle, {**self._fields, "suppressed": suppressed})

    def _write(
        self,
        level: int,
        message: str,
        fields: dict[str, object],
        error: BaseException | None = None,
    ) -> None:
        if self._logger.isEnabledFor(level):
            extra = {"fields": {**fields, **self._fields}}
            self._logger.log(level, message, exc_info=error, extra=extra)


def level_flag() -> Any:
    """Declare the flag `-log-level`."""
    return flags.flag(
        "|".join(LEVELS),
        parse=flags.choice(*LEVELS),
        default="info",
        help="minimum level of the lines that are logged",
    )


def format_flag() -> Any:
    """Declare the flag `-log-format`."""
    return flags.flag(
        "|".join(FORMATS),
        parse=flags.choice(*FORMATS),
        default="text",
        help="format of log lines",
    )


def configure(
    name: str,
    level: str = "info",
    format: str = "text",  # noqa: A002  as the flag
    stream: TextIO | None = None,
) -> Log:
    """Send all log lines of this process to `stream` (default: stderr); return the log of `name`.

    `level`, one of LEVELS, applies to the logger `name` and to the SDK's logger. Other libraries
    are logged from warnings up.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for logger in (_SDK, name):
        logging.getLogger(logger).setLevel(LEVELS[level])
    return Log(logging.getLogger(name))


_disabled_logger = logging.getLogger("arke.program.disabled")
_disabled_logger.disabled = True
_DISABLED = Log(_disabled_logger)
