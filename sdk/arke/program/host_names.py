"""The host names under which admin pages may be requested.

A web page of an attacker may let its own name point to this machine's address (DNS rebinding). Then
the browser lets it read what this machine answers. So a server without authentication must refuse
requests whose `Host` field has an unknown name.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import ip_address

ALWAYS = "an IP address, localhost or this machine's host name"


class HostNames:
    """Accepts IP addresses, `localhost`, the name of this machine, and the given names."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        known = ("localhost", socket.gethostname(), *names)
        self._names = frozenset(name.lower().rstrip(".") for name in known if name)

    def accept(self, host: str) -> bool:
        """Say whether the value of a `Host` field is accepted. It may contain a port."""
        name, colon, port = host.rpartition(":")
        if not colon or (not port.isdigit() and port):
            name = host
        if name.startswith("[") and name.endswith("]"):
            name = name[1:-1]
        try:
            ip_address(name)
        except ValueError:
            return name.lower().rstrip(".") in self._names
        return True
