"""Whether a request whose back end failed may be sent once more."""

from __future__ import annotations

# RFC 9110, 9.2.2: sent twice, they mean the same as once.
IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"))


def may_go_again(method: bytes, *, sent: bool, body_at_hand: bool, told: bool) -> bool:
    """Say whether another back end may get the request.

    `sent`: the failed one may have read some of it. `body_at_hand`: all that arrived of the body
    is still in memory. `told`: the client has been sent part of an answer.
    """
    if told or not body_at_hand:
        return False
    return not sent or method in IDEMPOTENT
