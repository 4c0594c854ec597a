"""Whether a request may be sent once more."""

from __future__ import annotations

# RFC 9110, 9.2.2: sent twice, they mean the same as once.
IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"))


def may_go_again(method: bytes, *, body_at_hand: bool) -> bool:
    """Say whether another back end may get what a broken one may have read.

    `body_at_hand`: all that has arrived of the body is still in memory. What reached no back end
    always may go again; what the client has been sent part of an answer to never may.
    """
    return body_at_hand and method in IDEMPOTENT
