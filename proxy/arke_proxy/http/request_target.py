"""Request targets, hosts and methods (RFC 9112, 3)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from arke_proxy.errors import MalformedMessage

# Registered methods that servers implement, and PURGE. Some servers take an unknown method for GET.
METHODS: Final = frozenset(
    b"GET HEAD POST PUT PATCH DELETE OPTIONS TRACE CONNECT QUERY PURGE "
    b"ACL BIND CHECKIN CHECKOUT COPY LABEL LINK LOCK MERGE MKACTIVITY MKCALENDAR MKCOL "
    b"MKREDIRECTREF MKWORKSPACE MOVE ORDERPATCH PROPFIND PROPPATCH REBIND REPORT SEARCH UNBIND "
    b"UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF VERSION-CONTROL".split()
)
_ABSOLUTE: Final = re.compile(
    rb"(?P<scheme>(?i:https?))://(?P<authority>[^/?]+)(?P<path>[!-\"$-~]*)"
)
_HOST: Final = re.compile(
    rb"(?:\[[0-9A-Fa-f:]{2,39}(?:\.[0-9.]{5,11})?\]|[A-Za-z0-9._-]{1,255})(?::[0-9]{0,5})?"
)


@lru_cache(maxsize=1024)  # a proxy sees few hosts, very often
def checked_host(host: bytes) -> bytes:
    """Return the value of a Host field, HOST or HOST:PORT. Raises MalformedMessage."""
    if not _HOST.fullmatch(host):
        raise MalformedMessage("its host is malformed")
    return host


def resolve_target(method: bytes, target: bytes, host: bytes | None) -> tuple[bytes, bytes | None]:
    """Return (target, host) of a request whose target is not a path (RFC 9112, 3.2).

    The absolute form becomes the origin form; its Host field must name the same host. Raises
    MalformedMessage.
    """
    if target == b"*" and method == b"OPTIONS":
        return target, host
    match = _ABSOLUTE.fullmatch(target)
    if not match:
        raise MalformedMessage("its target is neither a path nor a URL")
    authority = checked_host(match["authority"])
    port = b":80" if len(match["scheme"]) == len(b"http") else b":443"
    if host is not None and _normalized(port, host) != _normalized(port, authority):
        raise MalformedMessage("its target and its Host field name different hosts")
    path = match["path"]
    if not path.startswith(b"/"):
        path = b"*" if method == b"OPTIONS" and not path else b"/" + path
    return path, authority


def _normalized(port: bytes, host: bytes) -> bytes:
    """Return a host without the default port of its scheme, for comparison."""
    return host.lower().removesuffix(port)
