"""The address of a backend: IP and port, and the member whose tunnel leads to it."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import NamedTuple

_WITH_PORT = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<v4>[^:\[\]]*)):(?P<port>[0-9]{1,5})")


class BackendAddress(NamedTuple):
    """An IP address (never a name) and a TCP port.

    `via` is the id of the member through whose tunnel the proxy connects; empty for a direct
    connection.
    """

    host: str
    port: int
    via: str = ""

    def __str__(self) -> str:
        return f"{self.authority} via {self.via}" if self.via else self.authority

    @property
    def authority(self) -> str:
        """The value of a `Host` field."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@lru_cache(maxsize=1024)  # members answer with the same few addresses again and again
def parse_address(text: str, default_port: int) -> BackendAddress:
    """Parse `IP`, `IP:PORT`, `[IPv6]` or `[IPv6]:PORT`. Raises ValueError for anything else."""
    host, port = text, default_port
    if match := _WITH_PORT.fullmatch(text):
        host, port = match["v6"] or match["v4"] or "", int(match["port"])
    elif text.startswith("[") and text.endswith("]"):
        host = text[1:-1]
    if not 0 < port < 65536:
        raise ValueError(f"a port must be between 1 and 65535 (got {port})")
    ip = ipaddress.ip_address(host)
    if ip.is_unspecified or ip.is_multicast:
        raise ValueError(f"{ip} is not the address of one machine")
    return BackendAddress(str(ip), port)
