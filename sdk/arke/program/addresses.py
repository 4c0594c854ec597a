"""Parse and write `HOST:PORT` and `IP:PORT`, for flags, metadata and wire fields alike.

Each parser returns a `HostPort`, or raises ValueError with a message that begins with "must".
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

_ENDS_WITH_PORT = re.compile(r"(?:\[[^\[\]]*\]|[^:\[\]]*):[^:]*")
_MAX_PORT = 65535


class HostPort(NamedTuple):
    """A host and a port. An empty host means every address of this machine."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def port(text: str) -> int:
    """Parse a port to connect to."""
    return whole_number(text, 1, _MAX_PORT)


def any_port(text: str) -> int:
    """Parse a port to listen on; 0 lets the system choose."""
    return whole_number(text, 0, _MAX_PORT)


def host_port(text: str) -> HostPort:
    """Parse an address to connect to: `node7:55556`, `192.168.56.101:55556`, `[fe80::1]:55556`."""
    host, number = _split(text)
    if not host:
        raise ValueError("must be HOST:PORT")
    return HostPort(host, port(number))


def listen_address(text: str) -> HostPort:
    """Parse an address to listen on: `:8080` on every address, `127.0.0.1:0` on any port of one."""
    host, number = _split(text)
    return HostPort(host, any_port(number))


def ip_port(text: str, default_port: int | None = None) -> HostPort:
    """Parse `IP:PORT`, `[IPv6]:PORT` or `:PORT`; the port may be missing if there is a default.

    A host name is rejected, because it may mean another machine where the address is used. The
    unspecified addresses `0.0.0.0` and `[::]` become an empty host. An IPv4 address that is written
    as IPv6 (`::ffff:10.0.0.5`) becomes IPv4, as the kernel treats it.
    """
    host, number = text, default_port
    if _ENDS_WITH_PORT.fullmatch(text):
        host, _, digits = text.rpartition(":")
        number = port(digits)
    if number is None:
        raise ValueError("must be IP:PORT, [IPv6]:PORT or :PORT")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif not host and text:
        return HostPort("", number)
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        raise ValueError("must have an IP address as the host") from None
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    if ip.is_multicast:
        raise ValueError("must be the address of one machine, not a multicast address")
    return HostPort("" if ip.is_unspecified else str(ip), number)


def depends_on_machine(host: str) -> bool:
    """Whether a host of `ip_port` means another computer on each machine that uses it.

    Such are loopback and link-local addresses, and those that start with 0.
    """
    ip = ipaddress.ip_address(host)
    if isinstance(ip, ipaddress.IPv4Address) and ip.packed[0] == 0:
        return True
    return ip.is_loopback or ip.is_link_local or ip.is_unspecified


def whole_number(text: str, lowest: int, highest: int) -> int:
    """Parse decimal digits; int() alone would accept `1_000`, ` 7 ` and non-ASCII digits."""
    digits = text.isascii() and text.isdigit() and len(text) <= len(str(highest))
    if not digits or not lowest <= int(text) <= highest:
        raise ValueError(f"must be between {lowest} and {highest}")
    return int(text)


def _split(text: str) -> tuple[str, str]:
    host, colon, number = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    if not colon or re.search(r"[\s/\[\]]", host) or (":" in host) is not bracketed:
        raise ValueError("must be HOST:PORT, with an IPv6 host in brackets")
    return host, number
