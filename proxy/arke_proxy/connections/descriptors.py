"""File descriptor limits: how many connections may be open, and messages when none are left."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
from typing import NamedTuple

NO_DESCRIPTORS = frozenset((errno.EMFILE, errno.ENFILE))
"""Errors of a call that found no free descriptor: the process's limit, or the machine's."""

DESCRIPTOR_FIX = "raise LimitNOFILE (ulimit -n), or lower -max-clients"

_RESERVED = 32  # listeners, the relay connection, logs, pipes, the event loop: 20, and a margin


class ConnectionLimits(NamedTuple):
    """How many connections may be open at once."""

    clients: int
    backends: int


def connection_limits(
    limit: int, max_clients: int | None = None, others: int = 0
) -> ConnectionLimits:
    """Divide `limit` descriptors between client and backend connections.

    `others` are reserved for admin connections, health checks and siblings.
    Clients get half, or `max_clients`. At least a quarter is kept for backends; otherwise no client
    could be served once all are connected.
    """
    free = max(2, limit - _RESERVED - others)
    clients = free // 2 if max_clients is None else min(max_clients, free - max(1, free // 4))
    return ConnectionLimits(clients, free - clients)


def raise_descriptor_limit() -> int:
    """Raise this process's soft limit to its hard limit; return the limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def check_descriptors() -> OSError | None:
    """Return the error that opening a descriptor fails with; None if one is free."""
    try:
        socket.socket().close()
    except OSError as error:
        return error if error.errno in NO_DESCRIPTORS else None
    return None


def describe_shortage(error: OSError) -> str:
    """Return one line that says which limit is reached, and how to raise it."""
    if error.errno == errno.ENFILE:
        return f"{os.strerror(errno.ENFILE)}: raise fs.file-max (sysctl)"
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return f"all {limit} descriptors are in use: {DESCRIPTOR_FIX}"
