"""How a command of `arke` ends when it did not do what it was asked to."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import arke
from arke.program import flags

_FAILED = 1
_INTERRUPTED = 130  # what shells report after Ctrl-C

_MENDS: dict[type[arke.ArkeError], str] = {
    arke.NoSuchCluster: "`arke status` lists the clusters there are",
    arke.Overloaded: "try again, or start more members",
    arke.RequestTimeout: "give it longer with -timeout",
    arke.MemberLost: "it may have been handled; ask again if that does no harm",
    arke.TunnelClosed: "see the log of the service, and `arke status`",
    arke.ConnectionLost: "it may have been handled; ask again if that does no harm",
    arke.ProtocolError: "is it a relay of this version that listens there, and does it run?",
}


def explained(error: arke.ArkeError) -> str:
    """Return what went wrong, and what to do about it."""
    if isinstance(error, arke.RemoteError):
        return f"the member raised {error}"
    mend = next((text for kind, text in _MENDS.items() if isinstance(error, kind)), "")
    return f"{error}; {mend}" if mend else str(error)


def fail(message: str) -> NoReturn:
    """End with one line on stderr and status 1."""
    flags.fail("arke", message, status=_FAILED)


def leave_quietly() -> NoReturn:
    """End after Ctrl-C, or when nobody reads stdout any more."""
    # The interpreter flushes stdout once more on its way out; that must not raise again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(_INTERRUPTED)
