"""When the other end counts as gone. Any traffic is life; our pauses are not its silence."""

from __future__ import annotations


class Liveness:
    """Judges one silent partner; times are seconds of a monotonic clock.

    `patience` is how long silence is borne. `tick` must be called about every `beat` seconds: a
    call that comes much later means that *we* were stopped (SIGSTOP, a suspended VM, a handler
    that blocked the loop), and the time we did not look does not count against the partner.
    """

    __slots__ = ("_beat", "_heard", "_patience", "_ticked")

    def __init__(self, patience: float, beat: float, now: float) -> None:
        self._patience = patience
        self._beat = beat
        self._heard = now
        self._ticked = now

    def heard(self, now: float) -> None:
        self._heard = now

    def silence(self, now: float) -> float:
        """Seconds since the partner was last heard."""
        return now - self._heard

    def tick(self, now: float) -> bool:
        """Whether the partner is to be given up."""
        paused = now - self._ticked - self._beat
        self._ticked = now
        if paused > self._beat:
            self._heard = min(now, self._heard + paused)
        return now - self._heard > self._patience
