"""One line per event, for people or for machines, that no outsider can forge or flood.

    log.info("peer admitted", node=node, address=address)

    2026-11-22T03:04:05.678Z info  peer admitted node=3f2a… address=192.168.56.102
    {"time": "2026-11-22T03:04:05.678Z", "level": "info", "message": "peer admitted", "node": …}

The message is a constant; whatever varies is a field. What others write into a field stays inside
its quotes, on its line, and short.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from datetime import UTC, datetime
from typing import TextIO

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}
FORMATS = ("text", "json")

_NAMES = {number: name for name, number in LEVELS.items()} | {logging.CRITICAL: "error"}
_VALUE = 256  # characters of one field
_MESSAGE = 1024  # ours are short; a library's may quote anything
_TRACE = 4096  # characters of a traceback: the last ones, where the cause is
_KEYS = 1024  # keys a limiter tells apart
_BARE = re.compile(r"[!#-<>-\[\]-~]+")  # printable ASCII but for space, quote, = and backslash


class Lines:
    """Writes structured lines to a standard logger."""

    def __init__(self, logger: logging.Logger, fields: Mapping[str, object]) -> None:
        self._logger = logger
        self._fields = fields

    def debug(self, message: str, /, **fields: object) -> None:
        self._line(logging.DEBUG, message, fields)

    def info(self, message: str, /, **fields: object) -> None:
        self._line(logging.INFO, message, fields)

    def warning(self, message: str, /, **fields: object) -> None:
        self._line(logging.WARNING, message, fields)

    def error(self, message: str, /, **fields: object) -> None:
        self._line(logging.ERROR, message, fields)

    def exception(self, message: str, /, **fields: object) -> None:
        """Report the exception being handled, which nobody foresaw, with its traceback."""
        self._line(logging.ERROR, message, fields, sys.exception())

    def _line(
        self,
        level: int,
        message: str,
        fields: dict[str, object],
        error: BaseException | None = None,
    ) -> None:
        if self._logger.isEnabledFor(level):
            extra = {"fields": {**fields, **self._fields}}
            self._logger.log(level, message, exc_info=error, extra=extra)


class Log(Lines):
    """The relay's log.

    `clock` returns seconds and only measures the periods of `limited`; a line's own time is the
    system's.
    """

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logger, {})
        self._limiter = _Limiter(clock)

    def limited(self, key: Hashable, seconds: float, most: int = 1) -> Lines:
        """Return where to write a line that an outsider can provoke.

        For one `key`, `most` lines pass in `seconds`; the next one that passes has a field
        `suppressed`, how many did not. There is room for 1024 keys at a time. All others
        share the lines of one, so rotating the key floods nothing either.
        """
        suppressed = self._limiter.admit(key, seconds, most)
        if suppressed is None:
            return _SILENCE
        return Lines(self._logger, {"suppressed": suppressed}) if suppressed else self


def configure(level: str = "info", format: str = "text", stream: TextIO | None = None) -> Log:  # noqa: A002  as the flag
    """Send every line of the process to `stream` (stderr), and return the relay's own log.

    `level` is one of LEVELS and governs the relay's lines; libraries are heard from warnings up.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_JsonFormatter() if format == "json" else _TextFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logger = logging.getLogger("arke_relay")
    logger.setLevel(LEVELS[level])
    return Log(logger)


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        words = [_stamp(record), f"{_level(record):<5}", _unforgeable(_message(record))]
        words += [f"{name}={_quoted(_text(value))}" for name, value in _fields(record).items()]
        if record.exc_info:
            words.append(f"trace={json.dumps(self._trace(record))}")
        return " ".join(words)

    def _trace(self, record: logging.LogRecord) -> str:
        assert record.exc_info
        return self.formatException(record.exc_info)[-_TRACE:]


class _JsonFormatter(_TextFormatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {"time": _stamp(record), "level": _level(record), "message": _message(record)}
        values = {name: _plain(value) for name, value in _fields(record).items()}
        trace = {"trace": self._trace(record)} if record.exc_info else {}
        return json.dumps(line | values | trace)


class _Limiter:
    """Says for each key whether a line more may pass in its period."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: dict[Hashable, float] = {}
        self._passed: dict[Hashable, int] = {}
        self._suppressed: dict[Hashable, int] = {}
        self._next_sweep = -math.inf

    def admit(self, key: Hashable, seconds: float, most: int) -> int | None:
        """Return how many were suppressed since the last one admitted; None to suppress this."""
        now = self._clock()
        if key not in self._until and len(self._until) >= _KEYS:
            key = self._room_for(key, now)
        if now >= self._until.get(key, -math.inf):
            self._until[key] = now + seconds
            self._passed[key] = 0
        if self._passed[key] >= most:
            self._suppressed[key] = self._suppressed.get(key, 0) + 1
            return None
        self._passed[key] += 1
        return self._suppressed.pop(key, 0)

    def _room_for(self, key: Hashable, now: float) -> Hashable:
        # Sweeping looks at every key: it waits until that can free one.
        if now >= self._next_sweep:
            for old in [old for old, until in self._until.items() if until <= now]:
                del self._until[old]
                self._passed.pop(old, None)
                # What nobody was told yet is told with the keys that share a line.
                if old is not _ALL_OTHERS and (count := self._suppressed.pop(old, 0)):
                    self._suppressed[_ALL_OTHERS] = self._suppressed.get(_ALL_OTHERS, 0) + count
            self._next_sweep = min(self._until.values(), default=now)
        return key if len(self._until) < _KEYS else _ALL_OTHERS


_NOBODY = logging.getLogger("arke_relay.nobody")
_NOBODY.disabled = True
_SILENCE = Lines(_NOBODY, {})
_ALL_OTHERS = object()


def _stamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"


def _level(record: logging.LogRecord) -> str:
    return _NAMES.get(record.levelno, record.levelname.lower())


def _message(record: logging.LogRecord) -> str:
    return _short(record.getMessage(), _MESSAGE)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    # A library's line has no fields of ours; say whose it is.
    fields: dict[str, object] = getattr(record, "fields", {"logger": record.name})
    return fields


def _text(value: object) -> str:
    match value:
        case bytes() | bytearray() | memoryview():
            return _short(bytes(value[: _VALUE // 2 + 1]).hex())
        case float():
            return f"{value:.6g}"
        case list() | tuple():
            return _short(",".join(_text(each) for each in value[: _VALUE // 2 + 1]))
        case _:
            return _short(str(value))


def _plain(value: object) -> str | int | float | bool | None:
    if isinstance(value, float):
        # JSON has no word for infinity; a reader must not choke on one.
        return value if math.isfinite(value) else str(value)
    return value if value is None or isinstance(value, int) else _text(value)


def _short(text: str, most: int = _VALUE) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _quoted(text: str) -> str:
    return text if _BARE.fullmatch(text) else json.dumps(text)


def _unforgeable(message: str) -> str:
    return message if message.isascii() and message.isprintable() else json.dumps(message)
