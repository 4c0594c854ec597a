"""Groups of header fields that a proxy treats specially."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

Field = tuple[bytes, bytes]

MAX_FIELDS: Final = 100

# These fields are about one connection, and are never forwarded (RFC 9110, 7.6.1).
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

# Other proxies set these, and backends trust them. This proxy sets none of them, and forwards them
# from trusted proxies only.
FROM_TRUSTED_PROXIES: Final = frozenset(
    (
        b"cf-connecting-ip",
        b"fastly-client-ip",
        b"front-end-https",
        b"true-client-ip",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"x-forwarded",
        b"x-forwarded-by",
        b"x-forwarded-path",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-protocol",
        b"x-forwarded-scheme",
        b"x-forwarded-server",
        b"x-forwarded-ssl",
        b"x-forwarded-uri",
        b"x-original-forwarded-for",
        b"x-original-host",
        b"x-original-url",
        b"x-real-ip",
        b"x-rewrite-url",
        b"x-scheme",
        b"x-script-name",
        b"x-url-scheme",
    )
)

# The proxy sets these for backends, or drops them. It keeps values from trusted proxies only, but a
# trace (traceparent, tracestate) from every client.
FORWARDED: Final = FROM_TRUSTED_PROXIES | frozenset(
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

# The proxy acts on these; a backend must not see them under a similar name.
GUARDED: Final = HOP_BY_HOP | FORWARDED | {b"content-length", b"expect", b"host"}
LOOKALIKE: Final = b""  # replaces a name that some backends would take for a guarded one

# Fields that are not allowed in trailers (RFC 9110, 6.5.1).
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


_MAX_CACHED_SIZE: Final = 128  # bytes of a value; long values have thousands of tokens


def tokens(value: bytes) -> frozenset[bytes]:
    """Split a comma-separated value such as that of `Connection`."""
    return _cached_tokens(value) if len(value) <= _MAX_CACHED_SIZE else _tokens(value)


def _tokens(value: bytes) -> frozenset[bytes]:
    return frozenset([token.strip() for token in value.lower().split(b",")])


_cached_tokens = lru_cache(maxsize=64)(_tokens)


def written(fields: Iterable[Field]) -> bytes:
    """Return these fields as lines."""
    return b"".join([b"%b: %b\r\n" % field for field in fields])
