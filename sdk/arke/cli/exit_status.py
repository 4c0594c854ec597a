"""Exit statuses and error messages of the `arke` command."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import arke
from arke.program import flags

_FAILED = 1
_INTERRUPTED = 130  # what shells report after Ctrl-C

_HINTS: dict[type[arke.ArkeError], str] = {
    arke.NoSuchCluster: "`arke status` lists the known clusters",
    arke.Overloaded: "retry, or start more members",
    arke.RequestTimeout: "increase -timeout",
    arke.MemberLost: "it may have been processed; retry only if that is safe",
    arke.TunnelClosed: "see the log of the service and `arke status`",
    arke.ConnectionLost: "it may have been processed; retry only if that is safe",
    arke.ProtocolError: "check that a relay of this version listens there and is not stopped",
}


def describe(error: arke.ArkeError) -> str:
    """Describe an error, with a hint about what to do."""
    if isinstance(error, arke.RemoteError):
        return f"the handler of the member raised {error}"
    hint = next((text for kind, text in _HINTS.items() if isinstance(error, kind)), "")
    return f"{error}; {hint}" if hint else str(error)


def fail(message: str) -> NoReturn:
    """Print one line on stderr and exit with status 1."""
    flags.fail("arke", message, status=_FAILED)


def exit_quietly() -> NoReturn:
    """Exit after Ctrl-C, or when the reader of stdout has closed it."""
    # The interpreter flushes stdout again at exit, which must not raise again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(_INTERRUPTED)
