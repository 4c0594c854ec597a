"""What a proxy must know about header fields, on either side."""

from __future__ import annotations

from collections.abc import Iterable

Field = tuple[bytes, bytes]

MAX_FIELDS = 100

# About one connection, not about the message: never passed on (RFC 9110, 7.6.1).
HOP_BY_HOP = frozenset(
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

# What the proxy alone may say to a back end: a client's word about itself is not to be believed.
FORWARDED = frozenset((b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"))

# What has a meaning only before the body (RFC 9110, 6.5.1).
NOT_IN_TRAILERS = (
    HOP_BY_HOP
    | FORWARDED
    | {
        b"authorization",
        b"cache-control",
        b"content-encoding",
        b"content-length",
        b"content-range",
        b"content-type",
        b"cookie",
        b"expect",
        b"host",
        b"max-forwards",
        b"range",
        b"set-cookie",
        b"trailer",
    }
)


def tokens(value: bytes) -> set[bytes]:
    """Split a comma-separated value such as that of `Connection`."""
    return {token.strip() for token in value.lower().split(b",")}


def without(fields: Iterable[Field], names: set[bytes]) -> list[Field]:
    """Drop what a `Connection` field names."""
    return [field for field in fields if field[0].lower() not in names]
