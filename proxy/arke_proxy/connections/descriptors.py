"""How a process's descriptors are shared out, and what is said when none is left."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
from typing import NamedTuple

NONE_LEFT = frozenset((errno.EMFILE, errno.ENFILE))
"""The errors of a call that found no descriptor: the process's limit, or the machine's."""

MEND = "raise LimitNOFILE (ulimit -n), or lower -max-clients"

_OWN = 32  # listeners, the relay, logs, pipes, the loop's: twenty, and some for what comes and goes


class Shares(NamedTuple):
    """How many connections may be open at once."""

    clients: int
    backends: int


def share(limit: int, wanted: int | None = None, others: int = 0) -> Shares:
    """Share out `limit` descriptors, of which `others` serve purposes of a worker's flags.

    Half are for clients, or as many as `wanted` says; but a quarter stays for backends in any
    case, or nobody could be answered once all clients are there.
    """
    free = max(2, limit - _OWN - others)
    clients = free // 2 if wanted is None else min(wanted, free - max(1, free // 4))
    return Shares(clients, free - clients)


def raise_limit() -> int:
    """Let this process have as many descriptors as it may; return how many that are."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def missing() -> OSError | None:
    """Return the error that whoever needs a descriptor gets now, if it is that none is left."""
    try:
        socket.socket().close()
    except OSError as error:
        return error if error.errno in NONE_LEFT else None
    return None


def shortage(error: OSError) -> str:
    """Say in one line which descriptors are used up, and what helps."""
    if error.errno == errno.ENFILE:
        return f"{os.strerror(errno.ENFILE)}: raise fs.file-max (sysctl)"
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return f"all {limit} descriptors are in use: {MEND}"
