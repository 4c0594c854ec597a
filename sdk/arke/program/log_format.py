"""Format log records as one line of text or JSON that remote input cannot forge.

Field values are quoted and escaped where necessary, and cut to 256 characters.
"""

from __future__ import annotations

import json
import logging
import math
import re
from datetime import UTC, datetime

_LEVEL_NAMES = {
    logging.DEBUG: "debug",
    logging.INFO: "info",
    logging.WARNING: "warn",
    logging.ERROR: "error",
    logging.CRITICAL: "error",
}
_MAX_VALUE = 256  # characters of one field
_MAX_MESSAGE = 1024  # characters; messages of libraries may quote anything
_MAX_TRACEBACK = 4096  # characters; the end is kept, because it names the cause
_NO_QUOTES_NEEDED = re.compile(r"[!#-<>-\[\]-~]+")  # printable ASCII except space " = \


class TextFormatter(logging.Formatter):
    """Time, level, message, then fields as `name=value`."""

    def format(self, record: logging.LogRecord) -> str:
        words = [_timestamp(record), f"{_level(record):<5}", _one_line(_message(record))]
        words += [f"{name}={_quoted(_as_text(value))}" for name, value in _fields(record).items()]
        if record.exc_info:
            words.append(f"trace={json.dumps(self._traceback(record))}")
        return " ".join(words)

    def _traceback(self, record: logging.LogRecord) -> str:
        assert record.exc_info
        return self.formatException(record.exc_info)[-_MAX_TRACEBACK:]


class JsonFormatter(TextFormatter):
    """One JSON object: `time`, `level`, `message` and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"time": _timestamp(record), "level": _level(record), "message": _message(record)}
        values = {name: _as_json(value) for name, value in _fields(record).items()}
        trace = {"trace": self._traceback(record)} if record.exc_info else {}
        return json.dumps(line | values | trace)


def _timestamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"


def _level(record: logging.LogRecord) -> str:
    return _LEVEL_NAMES.get(record.levelno, record.levelname.lower())


def _message(record: logging.LogRecord) -> str:
    return _shortened(record.getMessage(), _MAX_MESSAGE)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    # A record of a library has no fields: the name of its logger says where it comes from.
    fields: dict[str, object] = getattr(record, "fields", {"logger": record.name})
    return fields


def _as_text(value: object) -> str:
    if isinstance(value, tuple) and type(value) is not tuple:
        return _shortened(str(value))  # a NamedTuple has a text of its own
    match value:
        case bytes() | bytearray() | memoryview():
            return _shortened(bytes(value[: _MAX_VALUE // 2 + 1]).hex())
        case float():
            return f"{value:.6g}"
        case list() | tuple():
            return _shortened(",".join(_as_text(each) for each in value[: _MAX_VALUE // 2 + 1]))
        case _:
            return _shortened(str(value))


def _as_json(value: object) -> str | int | float | bool | None:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)  # JSON has no infinity
    return value if value is None or isinstance(value, int) else _as_text(value)


def _shortened(text: str, limit: int = _MAX_VALUE) -> str:
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _quoted(text: str) -> str:
    return text if _NO_QUOTES_NEEDED.fullmatch(text) else json.dumps(text)


def _one_line(message: str) -> str:
    return message if message.isascii() and message.isprintable() else json.dumps(message)
