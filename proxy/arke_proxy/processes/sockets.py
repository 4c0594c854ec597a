"""The sockets that a proxy listens on: its own, or those that systemd hands it."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping
from typing import Any

BACKLOG = 4096  # connections that the kernel keeps until they are accepted
_FIRST = 3  # the first descriptor that systemd passes; sd_listen_fds(3)
_NAMED = ("admin", "tls")
_NO_IPV6 = frozenset((errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL))


def inherited(environ: Mapping[str, str]) -> dict[str, socket.socket]:
    """Take what systemd has passed: sockets named `admin` or `tls`, and any other as `public`.

    They listen from here on. Raises ValueError where that is not one of each at most, and OSError
    for what cannot listen.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    count = int(environ.get("LISTEN_FDS", "0"))
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    names += [""] * (count - len(names))
    found: dict[str, socket.socket] = {}
    for number, given in enumerate(names[:count], _FIRST):
        name = given if given in _NAMED else "public"
        if name in found:
            raise ValueError(f"systemd passes two sockets to be the {name} one; it takes one")
        found[name] = socket.socket(fileno=number)
        found[name].listen(BACKLOG)  # if it does not listen yet, or keeps fewer waiting
    return found


def mend(error: OSError, flag: str) -> str:
    """Say what to do about a port that could not be taken."""
    match error.errno:
        case errno.EADDRINUSE:
            return f"the port is taken; stop what uses it, or choose another with {flag}"
        case errno.EACCES:
            return f"ports below 1024 need the right to bind them; choose another with {flag}"
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address; `ip address` shows those it has"
        case _:
            return f"{error.strerror or error}; give an address of this machine with {flag}"


def listen(host: str, port: int, count: int = 1) -> list[socket.socket]:
    """Return `count` sockets that listen there, which the kernel shares out connections to.

    An empty host is every address. They listen from here on, and who connects waits for a worker:
    a port that is bound alone can be bound a second time. That it may be shared is said after it
    was taken: whoever wants it for himself is still told that he cannot have it. Raises OSError.
    """
    first = _bind(host, port)
    sockets = [first]
    try:
        first.listen(BACKLOG)
        if count > 1:
            first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for _ in range(count - 1):
            sockets.append(_bound(first.family, first.getsockname(), share=True))
            sockets[-1].listen(BACKLOG)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _bind(host: str, port: int) -> socket.socket:
    if host:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return _bound(family, where)
    try:
        return _bound(socket.AF_INET6, ("::", port))
    except OSError as error:
        if error.errno not in _NO_IPV6:
            raise
    return _bound(socket.AF_INET, ("", port))


def _bound(family: int, where: tuple[Any, ...], *, share: bool = False) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if share:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if where[0] == "::":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(where)
    except BaseException:
        sock.close()
        raise
    return sock
