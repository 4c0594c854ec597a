"""The address of a service's HTTP server, as it is published in the member's metadata."""

from __future__ import annotations

from arke.program.addresses import HostPort, ip_port

METADATA_KEY = "http"
"""The key of the address in a member's metadata."""

HttpServerAddress = HostPort
"""An address that a service registers. An empty host is that of its node, which may change."""


def parse_http_address(text: str) -> HttpServerAddress:
    """Parse `IP:PORT`, `[IPv6]:PORT` or `:PORT`. Raises ValueError.

    Host names are rejected: another machine may resolve the name to another address.
    """
    try:
        return ip_port(text)
    except ValueError as error:
        raise ValueError(f"http {error} (got {text[:60]!r})") from None
