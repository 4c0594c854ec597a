"""Detect a dead connection: a timeout without traffic that ignores pauses of our own process."""

from __future__ import annotations


class Liveness:
    """Decides when one remote end is considered dead. Times are seconds of a monotonic clock.

    The remote end times out after `timeout` seconds without traffic. `timed_out` must be called
    about every `interval` seconds. A much later call means that our own process was stopped
    (SIGSTOP, a suspended VM, a handler that blocks the loop); that pause does not count as silence
    of the remote end.
    """

    __slots__ = ("_checked_at", "_interval", "_last_traffic", "_timeout")

    def __init__(self, timeout: float, interval: float, now: float) -> None:
        self._timeout = timeout
        self._interval = interval
        self._last_traffic = now
        self._checked_at = now

    def on_traffic(self, now: float) -> None:
        """Record that data arrived."""
        self._last_traffic = now

    def silence(self, now: float) -> float:
        """Return the seconds since the last traffic."""
        return now - self._last_traffic

    def timed_out(self, now: float) -> bool:
        """Return whether the remote end is considered dead."""
        paused = now - self._checked_at - self._interval
        self._checked_at = now
        if paused > self._interval:
            self._last_traffic = min(now, self._last_traffic + paused)
        return now - self._last_traffic > self._timeout
