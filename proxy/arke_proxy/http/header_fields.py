"""What a proxy must know about header fields, on either side."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

Field = tuple[bytes, bytes]

MAX_FIELDS: Final = 100

# About one connection, not about the message: never passed on (RFC 9110, 7.6.1).
HOP_BY_HOP: Final = frozenset(
    (
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    )
)

# What the proxy itself tells a backend; a client's word is believed only where that is said.
FORWARDED: Final = frozenset(
    (
        b"forwarded",
        b"traceparent",
        b"tracestate",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-request-id",
    )
)

# What the proxy reads, and must therefore reach nobody under another spelling.
GUARDED: Final = HOP_BY_HOP | FORWARDED | {b"content-length", b"expect", b"host"}
LOOKALIKE: Final = b""  # stands for the name of a field that some would read as a guarded one

# What has a meaning only before the body (RFC 9110, 6.5.1).
NOT_IN_TRAILERS: Final = GUARDED | {
    b"authorization",
    b"cache-control",
    b"content-encoding",
    b"content-range",
    b"content-type",
    b"cookie",
    b"max-forwards",
    b"range",
    b"set-cookie",
    b"trailer",
}


_MOST_REMEMBERED: Final = 128  # bytes of a value; a long one would be kept as thousands of tokens


def tokens(value: bytes) -> frozenset[bytes]:
    """Split a comma-separated value such as that of `Connection`."""
    return _remembered(value) if len(value) <= _MOST_REMEMBERED else _tokens(value)


def _tokens(value: bytes) -> frozenset[bytes]:
    return frozenset([token.strip() for token in value.lower().split(b",")])


_remembered = lru_cache(maxsize=64)(_tokens)


def written(fields: Iterable[Field]) -> bytes:
    """Return the lines of these fields."""
    return b"".join([b"%b: %b\r\n" % field for field in fields])
