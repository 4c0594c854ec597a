"""Whether a request may be sent once more."""

from __future__ import annotations

from typing import Final

# RFC 9110, 9.2.2: sent twice, they mean the same as once. (TRACE does not pass.)
IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"))

_SHARE: Final = 0.2  # of the requests
_LEAST: Final = 3  # at once, or a quiet proxy would never try again
_SECONDS: Final = 5.0  # half of the time that is looked back upon


def may_retry(method: bytes, *, sent: bool, body_at_hand: bool) -> bool:
    """Say whether another backend may get what one that broke was to get.

    `sent`: that one may have read some of it; `body_at_hand`: all that has arrived of the body is
    still in memory. What the client has been sent part of an answer to never may go again.
    """
    return body_at_hand and (not sent or method in IDEMPOTENT)


class RetryBudget:
    """Keeps further attempts to a fifth of the traffic: backends in trouble are not drowned.

    Three requests at once may always be in a further attempt. It looks back over ten seconds, in
    two halves. `requests` is raised by whoever begins one.
    """

    __slots__ = ("_earlier", "_ends", "_retries", "_under_way", "requests")

    def __init__(self, now: float) -> None:
        self.requests = 0
        self._retries = 0
        self._earlier = (0, 0)  # requests and retries of the half before
        self._under_way = 0
        self._ends = now + _SECONDS

    def begin(self) -> bool:
        """Let a request go again, once or several times; False if too many do already."""
        requests, retries = self._earlier
        share = _SHARE * (self.requests + requests)
        if self._under_way >= _LEAST and self._retries + retries >= share:
            return False
        self._retries += 1
        self._under_way += 1
        return True

    def end(self) -> None:
        """Learn that a request which went again has ended."""
        self._under_way -= 1

    def turn(self, now: float) -> None:
        """Let go of what is too long ago."""
        if now < self._ends:
            return
        late = now >= self._ends + _SECONDS
        self._earlier = (0, 0) if late else (self.requests, self._retries)
        self.requests = self._retries = 0
        self._ends = now + _SECONDS
