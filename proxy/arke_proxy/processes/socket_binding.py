"""Bind the proxy's listening sockets, one for each worker."""

from __future__ import annotations

import errno
import socket
from typing import Any

BACKLOG = 4096  # connections that the kernel queues until they are accepted
_NO_IPV6 = frozenset((errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL))


def describe_bind_error(error: OSError, flag: str) -> str:
    """Say why an address could not be bound, and how to fix it."""
    match error.errno:
        case errno.EADDRINUSE:
            return f"the port is in use; stop the program that uses it, or change {flag}"
        case errno.EACCES:
            return f"binding a port below 1024 needs CAP_NET_BIND_SERVICE; or change {flag}"
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address; `ip address` lists its addresses"
        case _:
            return f"{error.strerror or error}; give an address of this machine with {flag}"


def bind_sockets(host: str, port: int, count: int = 1) -> list[socket.socket]:
    """Return `count` listening sockets on one port, among which the kernel spreads connections.

    An empty host is every address. The sockets listen at once, so that clients can connect before
    a worker accepts, and no other program can bind the port. SO_REUSEPORT is set only after the
    first bind, so that this bind fails if the port is in use. Raises OSError.
    """
    first = _bind_first(host, port)
    sockets = [first]
    try:
        first.listen(BACKLOG)
        if count > 1:
            first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for _ in range(count - 1):
            sockets.append(_bind(first.family, first.getsockname(), share=True))
            sockets[-1].listen(BACKLOG)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _bind_first(host: str, port: int) -> socket.socket:
    if host:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return _bind(family, address)
    try:
        return _bind(socket.AF_INET6, ("::", port))
    except OSError as error:
        if error.errno not in _NO_IPV6:
            raise
    return _bind(socket.AF_INET, ("", port))


def _bind(family: int, address: tuple[Any, ...], *, share: bool = False) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if share:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address[0] == "::":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock
