"""The address of a service's HTTP server: parse it, and format it for the member's metadata."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

METADATA_KEY = "http"
"""The key of the address in a member's metadata."""

_PATTERN = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<v4>[^:\[\]]*)):(?P<port>[0-9]{1,5})")


class HttpServerAddress(NamedTuple):
    """An address that a service registers. An empty host is that of its node, which may change."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_http_address(text: str) -> HttpServerAddress:
    """Parse `IP:PORT`, `[IPv6]:PORT` or `:PORT`. Raises ValueError.

    Host names are rejected: another machine may resolve the name to another address.
    """
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise ValueError(f"must be IP:PORT, [IPv6]:PORT or :PORT (got {text!r:.60})")
    port = int(match["port"])
    if not 0 < port < 65536:
        raise ValueError(f"the port must be between 1 and 65535 (got {port})")
    host = match["v6"] or match["v4"]
    if not host:
        return HttpServerAddress("", port)
    ip = ipaddress.ip_address(host)
    if ip.is_multicast:
        raise ValueError(f"must be the address of one machine (got the multicast address {ip})")
    return HttpServerAddress("" if ip.is_unspecified else str(ip), port)
