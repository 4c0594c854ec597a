"""The Date header field."""

from __future__ import annotations

from email.utils import formatdate
from functools import lru_cache
from typing import Final


def http_date(now: float) -> bytes:
    """Return the value of `Date` (RFC 9110, 5.6.7); `now` is in seconds since 1970."""
    return _date(int(now))


def _format(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()


_date: Final = lru_cache(maxsize=2)(_format)
