"""Retry policy: which requests may be retried, and the retry budget."""

from __future__ import annotations

from typing import Final

# RFC 9110, 9.2.2: sending one twice has the same effect as once. (TRACE is not forwarded.)
IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"))

_MAX_SHARE: Final = 0.2  # retried requests / requests
_MIN_CONCURRENT: Final = 3  # always allowed, or a proxy with few requests could not retry
_HALF_WINDOW: Final = 5.0  # seconds


def may_retry(method: bytes, *, sent: bool, body_buffered: bool) -> bool:
    """Whether a request whose backend failed may be sent to another one.

    `sent`: the backend may have read part of it; `body_buffered`: all of the body received so far
    is still in memory. The caller checks that the client has not been sent part of an answer.
    """
    return body_buffered and (not sent or method in IDEMPOTENT)


class RetryBudget:
    """Retry budget: retries at most a fifth of the requests, to protect failing backends.

    Up to three concurrent requests may always be retried. The limit applies to the last ten
    seconds, which are counted in two halves. Callers increment `requests` for each request.
    """

    __slots__ = ("_half_ends", "_previous", "_retried", "_running", "requests")

    def __init__(self, now: float) -> None:
        self.requests = 0  # in the current half of the window
        self._retried = 0
        self._previous = (0, 0)  # requests and retried requests in the half before
        self._running = 0  # retried requests that have not ended
        self._half_ends = now + _HALF_WINDOW

    def acquire(self) -> bool:
        """Allow retries of one request, or return False if the budget is spent."""
        requests, retried = self._previous
        allowed = _MAX_SHARE * (self.requests + requests)
        if self._running >= _MIN_CONCURRENT and self._retried + retried >= allowed:
            return False
        self._retried += 1
        self._running += 1
        return True

    def release(self) -> None:
        """Record that a retried request has ended."""
        self._running -= 1

    def advance(self, now: float) -> None:
        """Forget what is older than the window."""
        if now < self._half_ends:
            return
        missed_half = now >= self._half_ends + _HALF_WINDOW
        self._previous = (0, 0) if missed_half else (self.requests, self._retried)
        self.requests = self._retried = 0
        self._half_ends = now + _HALF_WINDOW
