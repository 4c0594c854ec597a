"""Backend health: ejection after failures, exponential backoff, trial requests."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

from arke_proxy.balancing.balancer import Outcome

_FIRST_EJECTION: Final = 1.0  # seconds; a restart takes about as long
_LONGEST_EJECTION: Final = 60.0
_UNAVAILABLE_LIMIT: Final = 5  # 502, 503 or 504 in a row; one alone may be the request's fault


class HealthState(Enum):
    """The state of one backend."""

    HEALTHY = auto()
    SUSPECT = auto()  # in rotation; its last answers were 502, 503 or 504
    EJECTED = auto()  # out of rotation until `retry_at`, when a trial request is due
    ON_TRIAL = auto()  # out of rotation while a trial request runs; the next is due at `retry_at`
    FAILED_CHECK = auto()  # out of rotation until an active health check passes


class HealthEvent(Enum):
    """What changes the state of a backend."""

    UNAVAILABLE = auto()  # one more answer 502, 503 or 504, below the limit
    FAILURE = auto()  # no connection, no answer, or too many answers 502, 503 or 504
    TRIAL = auto()  # a trial request starts
    CHECK_FAILURE = auto()  # active health checks failed
    RECOVERY = auto()  # a request or a check succeeded


class HealthChange(Enum):
    """What the outcome of a request changed."""

    NONE = auto()
    EJECTED = auto()  # a new ejection starts
    RECOVERED = auto()


HEALTHY: Final = HealthState.HEALTHY  # compiled code looks a Final up faster than an enum's member
_FAILED_CHECK: Final = HealthState.FAILED_CHECK
_EJECTED: Final = HealthState.EJECTED
_IN_ROTATION: Final = frozenset((HealthState.HEALTHY, HealthState.SUSPECT))

_TRANSITIONS: Final[Mapping[tuple[HealthState, HealthEvent], HealthState]] = {
    (HealthState.HEALTHY, HealthEvent.UNAVAILABLE): HealthState.SUSPECT,
    (HealthState.HEALTHY, HealthEvent.FAILURE): HealthState.EJECTED,
    (HealthState.HEALTHY, HealthEvent.CHECK_FAILURE): HealthState.FAILED_CHECK,
    (HealthState.HEALTHY, HealthEvent.RECOVERY): HealthState.HEALTHY,
    (HealthState.SUSPECT, HealthEvent.UNAVAILABLE): HealthState.SUSPECT,
    (HealthState.SUSPECT, HealthEvent.FAILURE): HealthState.EJECTED,
    (HealthState.SUSPECT, HealthEvent.CHECK_FAILURE): HealthState.FAILED_CHECK,
    (HealthState.SUSPECT, HealthEvent.RECOVERY): HealthState.HEALTHY,
    (HealthState.EJECTED, HealthEvent.FAILURE): HealthState.EJECTED,
    (HealthState.EJECTED, HealthEvent.TRIAL): HealthState.ON_TRIAL,
    (HealthState.EJECTED, HealthEvent.CHECK_FAILURE): HealthState.FAILED_CHECK,
    (HealthState.EJECTED, HealthEvent.RECOVERY): HealthState.HEALTHY,
    (HealthState.ON_TRIAL, HealthEvent.FAILURE): HealthState.EJECTED,
    (HealthState.ON_TRIAL, HealthEvent.TRIAL): HealthState.ON_TRIAL,
    (HealthState.ON_TRIAL, HealthEvent.CHECK_FAILURE): HealthState.FAILED_CHECK,
    (HealthState.ON_TRIAL, HealthEvent.RECOVERY): HealthState.HEALTHY,
    (HealthState.FAILED_CHECK, HealthEvent.FAILURE): HealthState.FAILED_CHECK,
    (HealthState.FAILED_CHECK, HealthEvent.CHECK_FAILURE): HealthState.FAILED_CHECK,
    (HealthState.FAILED_CHECK, HealthEvent.RECOVERY): HealthState.HEALTHY,
}


class BackendHealth:
    """The health of one backend, as the proxy's own requests and active checks show it.

    A failure ejects the backend for one second. Then one trial request is sent to it. Each trial
    doubles the wait before the next one, up to a minute, until a request succeeds.
    """

    __slots__ = ("_next_ejection", "_unavailable", "reachable", "retry_at", "state")

    def __init__(self) -> None:
        self.state = HealthState.HEALTHY
        self.retry_at = -math.inf  # when the next trial request is due
        self.reachable = True  # whether connecting to it works; False only while ejected
        self._next_ejection = _FIRST_EJECTION  # seconds
        self._unavailable = 0  # answers 502, 503 or 504 since the last recovery

    @property
    def ejected(self) -> bool:
        """Whether the backend is out of rotation."""
        return self.state not in _IN_ROTATION

    @property
    def next_ejection(self) -> float:
        """How many seconds the next ejection lasts."""
        return self._next_ejection

    def record(self, outcome: Outcome, now: float, *, in_use: bool = False) -> HealthChange:
        """Apply the outcome of a request. `in_use`: ordinary requests are sent to the backend."""
        ejection = False
        if outcome is Outcome.ANSWERED:
            # An ejected backend may answer a request that was sent before its ejection.
            if self.state is _FAILED_CHECK or (self.state is _EJECTED and not in_use):
                return HealthChange.NONE
            was_ejected = self.ejected
            self.recover()
            return HealthChange.RECOVERED if was_ejected else HealthChange.NONE
        if outcome is Outcome.UNAVAILABLE:
            ejection = self.unavailable(now)
        elif outcome is not Outcome.ABANDONED:
            ejection = self.failed(now)
        return HealthChange.EJECTED if ejection else HealthChange.NONE

    def failed(self, now: float, *, reachable: bool = True) -> bool:
        """Apply a failed request or connection attempt. Return whether a new ejection starts.

        A failure before `retry_at` is that of the trial, or of a request sent before the ejection.
        """
        new = not self.ejected or now >= self.retry_at
        self._move(HealthEvent.FAILURE)
        if new:
            self.reachable = True
            self._back_off(now)
        self.reachable = self.reachable and reachable
        return new

    def unavailable(self, now: float) -> bool:
        """Apply an answer 502, 503 or 504. Return whether a new ejection starts."""
        self._unavailable += 1
        if self._unavailable >= _UNAVAILABLE_LIMIT or self.ejected:
            return self.failed(now)
        self._move(HealthEvent.UNAVAILABLE)
        return False

    def start_trial(self, now: float) -> None:
        """Record the start of a trial request, and when the next one is due."""
        self._move(HealthEvent.TRIAL)
        self._back_off(now)

    def start_early_trial(self) -> None:
        """Record a trial request that starts before `retry_at`, which does not change."""
        self._move(HealthEvent.TRIAL)

    def fail_check(self, *, reachable: bool) -> bool:
        """Eject the backend until `recover`. Return whether this is a new ejection."""
        new = self.state is not _FAILED_CHECK
        self._move(HealthEvent.CHECK_FAILURE)
        self.reachable = reachable
        self.retry_at = math.inf
        return new

    def recover(self) -> None:
        """Return the backend to rotation and reset its backoff."""
        self._move(HealthEvent.RECOVERY)
        self.reachable = True
        self.retry_at = -math.inf
        self._next_ejection = _FIRST_EJECTION
        self._unavailable = 0

    def _move(self, event: HealthEvent) -> None:
        self.state = _TRANSITIONS[self.state, event]

    def _back_off(self, now: float) -> None:
        self.retry_at = now + self._next_ejection
        self._next_ejection = min(2 * self._next_ejection, _LONGEST_EJECTION)
