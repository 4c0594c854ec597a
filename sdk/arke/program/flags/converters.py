"""Converters: parse the text of a flag into its value.

A converter takes the text and returns the value, or raises ValueError with a message that completes
"-flag …": "must be on or off". Any callable of this shape can be a converter.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from arke.program.addresses import whole_number
from arke.wire.limits import MAX_NAME

_SECONDS_PER_UNIT = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MAX_DURATION = 365 * 86400.0  # timers and the wire have limits
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|[smhd])?")
_ON_OFF = dict.fromkeys(("on", "yes", "true", "1"), True) | dict.fromkeys(
    ("off", "no", "false", "0"), False
)

_Number = TypeVar("_Number", int, float)


def text(value: str) -> str:
    """Accept any text that is not blank."""
    if not value.strip():
        raise ValueError("must not be empty")
    return value


def name(value: str) -> str:
    """Accept a name for a cluster, a topic or a network."""
    try:
        length = len(value.encode())
    except UnicodeEncodeError:  # the shell passed bytes that are not UTF-8
        length = 0
    if not 0 < length <= MAX_NAME:
        raise ValueError(f"must be 1 to {MAX_NAME} bytes of UTF-8 text")
    return value


def count(value: str) -> int:
    """Parse a whole number of at least 1."""
    return whole_number(value, 1, 2**31 - 1)


def number(lowest: int, highest: int) -> Callable[[str], int]:
    """Make a converter for a whole number in a range."""
    return lambda value: whole_number(value, lowest, highest)


def at_most(parse: Callable[[str], _Number], highest: _Number) -> Callable[[str], _Number]:
    """Make a converter that also rejects values over `highest`."""

    def bounded(value: str) -> _Number:
        parsed = parse(value)
        if parsed > highest:
            raise ValueError(f"must be at most {highest:g}")
        return parsed

    return bounded


def on_off(value: str) -> bool:
    """Parse `on` or `off`, or the usual synonyms in environment variables."""
    try:
        return _ON_OFF[value.lower()]
    except KeyError:
        raise ValueError("must be on or off") from None


def seconds(value: str) -> float:
    """Parse a positive duration into seconds: `0.5`, `250ms`, `5s`, `10m`, `24h`, `7d`."""
    match = _DURATION.fullmatch(value)
    duration = float(match[1]) * _SECONDS_PER_UNIT[match[2] or "s"] if match else 0.0
    if not 0.0 < duration <= _MAX_DURATION:
        raise ValueError("must be a time such as 250ms, 5s, 10m or 24h, at most 365d")
    return duration


class choice:  # noqa: N801  used like the functions above
    """A converter that accepts exactly these words."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def __call__(self, value: str) -> str:
        if value not in self.words:
            raise ValueError(f"must be {', '.join(self.words[:-1])} or {self.words[-1]}")
        return value
