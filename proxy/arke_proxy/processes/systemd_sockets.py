"""Systemd socket activation: take over the listening sockets that systemd passes."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from arke_proxy.processes.socket_binding import BACKLOG

_FIRST_DESCRIPTOR = 3  # sd_listen_fds(3)
_OWN_NAMES = ("admin", "tls")


def inherited_sockets(environ: Mapping[str, str]) -> dict[str, socket.socket]:
    """Return the passed sockets, listening: those named `admin` and `tls`, any other as `public`.

    Raises ValueError if two have the same role, and OSError for a socket that cannot listen.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    count = int(environ.get("LISTEN_FDS", "0"))
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    names += [""] * (count - len(names))
    sockets: dict[str, socket.socket] = {}
    for descriptor, passed_name in enumerate(names[:count], _FIRST_DESCRIPTOR):
        name = passed_name if passed_name in _OWN_NAMES else "public"
        if name in sockets:
            raise ValueError(f"systemd passes two {name} sockets; pass one")
        sockets[name] = socket.socket(fileno=descriptor)
        sockets[name].listen(BACKLOG)  # raises the backlog if it listens already
    return sockets
