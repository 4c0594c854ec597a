"""Where a service's HTTP server is: read from text, and written for those who look for it."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

METADATA = "http"
"""What the address is called in a member's metadata."""

_TEXT = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<v4>[^:\[\]]*)):(?P<port>[0-9]{1,5})")


class HttpServer(NamedTuple):
    """An address that a service registers. An empty host is that of its node, which may change."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(text: str) -> HttpServer:
    """Read `IP:PORT`, `[IPv6]:PORT` or `:PORT`. Raises ValueError.

    A name is not taken: whoever reads the address may know the name as another machine.
    """
    match = _TEXT.fullmatch(text)
    if match is None:
        raise ValueError(f"must be IP:PORT, [IPv6]:PORT or :PORT, not {text!r:.60}")
    port = int(match["port"])
    if not 0 < port < 65536:
        raise ValueError(f"must have a port from 1 to 65535, not {port}")
    host = match["v6"] or match["v4"]
    if not host:
        return HttpServer("", port)
    ip = ipaddress.ip_address(host)
    if ip.is_multicast:
        raise ValueError(f"must be the address of one machine, not {ip}")
    return HttpServer("" if ip.is_unspecified else str(ip), port)
