"""The address of a backend: IP and port, and the member whose tunnel leads to it."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from arke.program.addresses import ip_port


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


@lru_cache(maxsize=1024)  # the members of a cluster name the same few addresses again and again
def parse_address(text: str, default_port: int | None = None) -> BackendAddress:
    """Parse `IP`, `IP:PORT`, `[IPv6]` or `[IPv6]:PORT`. Raises ValueError for anything else."""
    host, port = ip_port(text, default_port)
    if not host:
        raise ValueError("must be the address of one machine")
    return BackendAddress(host, port)
