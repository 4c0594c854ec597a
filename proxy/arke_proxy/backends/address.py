"""Where a backend listens."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import NamedTuple

_WITH_PORT = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<v4>[^:\[\]]*)):(?P<port>[0-9]{1,5})")


class BackendAddress(NamedTuple):
    """An IP address, never a name, and a TCP port.

    `via` is the id of the member whose program makes the last connection, at the far end of a
    tunnel; empty where this machine connects by itself.
    """

    host: str
    port: int
    via: str = ""

    def __str__(self) -> str:
        return f"{self.authority} via {self.via}" if self.via else self.authority

    @property
    def authority(self) -> str:
        """The host and the port, as a Host line has them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@lru_cache(maxsize=1024)  # a cluster that is asked names the same few again and again
def parse_address(text: str, default_port: int) -> BackendAddress:
    """Read `IP`, `IP:PORT`, `[IPv6]` or `[IPv6]:PORT`. Raises ValueError for anything else."""
    host, port = text, default_port
    if match := _WITH_PORT.fullmatch(text):
        host, port = match["v6"] or match["v4"] or "", int(match["port"])
    elif text.startswith("[") and text.endswith("]"):
        host = text[1:-1]
    if not 0 < port < 65536:
        raise ValueError(f"{port} is no port")
    ip = ipaddress.ip_address(host)
    if ip.is_unspecified or ip.is_multicast:
        raise ValueError(f"{ip} is not the address of one machine")
    return BackendAddress(str(ip), port)
