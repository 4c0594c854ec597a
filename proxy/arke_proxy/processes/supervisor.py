"""Which workers there are and which there should be. Decides; does nothing by itself.

A worker is STARTING until it says that it serves, then SERVING. A generation takes over when all
of its workers serve: those of the one before are RETIRED, and end when their last connection does.
One that failed to take over is DISCARDED.
"""

from __future__ import annotations

import signal
from enum import Enum, auto
from typing import Protocol

READY = 30.0  # seconds that a new generation may take; the first may wait for its relay
_SETTLED = 10.0  # seconds; who has lived so long did not fail at once
_FIRST_PAUSE = 0.1  # seconds before a worker that ended is replaced; doubles each time
_LAST_PAUSE = 10.0
_MARGIN = 5.0  # seconds beyond the time of grace until what does not end is killed
_MOST_RETIRED = 16  # workers; each reload may leave some behind for as long as a WebSocket lasts


class State(Enum):
    """Of a worker."""

    STARTING = auto()
    SERVING = auto()
    RETIRED = auto()
    DISCARDED = auto()


class Hands(Protocol):
    """What a supervisor can do."""

    def spawn(self) -> int:
        """Start a worker; return its number, which is that of its process."""

    def retire(self, pid: int) -> None:
        """Tell a worker to accept no more, and to leave when nothing runs."""

    def signal(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to a worker that has not ended."""

    def say(self, level: str, sentence: str) -> None:
        """Log."""


class _Worker:
    __slots__ = ("deadline", "generation", "started", "state")

    def __init__(self, generation: int, started: float, deadline: float) -> None:
        self.generation = generation
        self.started = started
        self.deadline = deadline
        self.state = State.STARTING


_NEVER = float("inf")


class Supervisor:
    """Keeps `size` workers; `greeting` is logged when the first generation serves.

    All calls pass the time, in seconds of one clock.
    """

    def __init__(self, hands: Hands, size: int, greeting: str, grace: float) -> None:
        self._hands = hands
        self._size = size
        self._greeting = greeting
        self._grace = grace
        self._workers: dict[int, _Worker] = {}
        self._current = 0  # the generation that serves; 0 before there is one
        self._coming: int | None = None  # the generation that is to take over
        self._again = False  # a further reload was asked for
        self._replacements: list[float] = []  # when to start them
        self._quick_ends = 0  # in a row
        self._kill_at = _NEVER
        self._stopping = False
        self.status: int | None = None
        """The exit status, once everything is over."""

    @property
    def due(self) -> float:
        """When `tick` is needed next, unless something else happens."""
        deadlines = [worker.deadline for worker in self._workers.values()]
        return min((self._kill_at, *self._replacements, *deadlines))

    def start(self, now: float) -> None:
        """Begin with the first generation, which has all the time it wants."""
        self._raise(now, _NEVER)

    def reload(self, now: float) -> None:
        """Let a new generation take over."""
        if self._stopping:
            return
        if self._coming is not None:
            self._again = True
            return
        self._hands.say("INFO", "starting new workers; the old ones serve until they are ready")
        self._raise(now, now + READY)

    def stop(self, now: float) -> None:
        """Tell everybody to finish; kill who has not after the time of grace."""
        if self._stopping:
            return
        self._stopping = True
        self._replacements.clear()
        self._kill_at = now + self._grace + _MARGIN
        for pid, worker in self._workers.items():
            worker.deadline = _NEVER
            self._hands.signal(pid, signal.SIGTERM)
        self._look_for_the_end()

    def ready(self, pid: int, now: float) -> None:
        """Note that a worker serves."""
        worker = self._workers.get(pid)
        if worker is None or worker.state is not State.STARTING or self._stopping:
            return
        worker.state = State.SERVING
        worker.deadline = _NEVER
        if worker.generation != self._coming:
            self._hands.say("INFO", f"worker {pid} serves")
            return
        generation = [w for w in self._workers.values() if w.generation == self._coming]
        if len(generation) == 1:  # one tries first: what is wrong is said once
            for _ in range(self._size - 1):
                self._spawn(self._coming, now, _NEVER if self._current == 0 else now + READY)
        if sum(w.state is State.SERVING for w in generation) == self._size:
            self._take_over(now)

    def exited(self, pid: int, status: int, now: float) -> None:
        """Note that a worker has ended; `status` is negative for a signal."""
        worker = self._workers.pop(pid)
        if self._stopping:
            self._look_for_the_end()
        elif worker.state is State.DISCARDED:
            pass
        elif worker.state is State.RETIRED:
            if status:
                self._hands.say("WARNING", f"worker {pid}, which had retired, {_ending(status)}")
        elif worker.generation == self._coming:
            self._fall(f"one {_ending(status)}", status if status >= 0 else 1, now)
        else:
            self._replace(pid, worker, status, now)

    def tick(self, now: float) -> None:
        """Do what is due."""
        if now >= self._kill_at:
            self._kill_at = _NEVER
            for pid in self._workers:
                self._hands.say("WARNING", f"worker {pid} does not end, and is killed")
                self._hands.signal(pid, signal.SIGKILL)
        if any(now >= worker.deadline for worker in self._workers.values()):
            self._fall(f"they were not within {READY:g} s", 1, now)
        for when in [when for when in self._replacements if now >= when]:
            self._replacements.remove(when)
            self._spawn(self._current, now, _NEVER)

    def _raise(self, now: float, deadline: float) -> None:
        self._coming = self._current + 1
        self._spawn(self._coming, now, deadline)

    def _spawn(self, generation: int, now: float, deadline: float) -> None:
        self._workers[self._hands.spawn()] = _Worker(generation, now, deadline)

    def _take_over(self, now: float) -> None:
        assert self._coming is not None
        first = self._current == 0
        self._current, self._coming = self._coming, None
        self._replacements.clear()
        for pid, worker in self._workers.items():
            if worker.generation != self._current and worker.state is State.SERVING:
                worker.state = State.RETIRED
                self._hands.retire(pid)
            elif worker.generation != self._current and worker.state is State.STARTING:
                self._discard(pid, worker)
        retired = [pid for pid, w in self._workers.items() if w.state is State.RETIRED]
        for pid in retired[:-_MOST_RETIRED]:
            self._hands.signal(pid, signal.SIGTERM)
        if first:
            for line in self._greeting.splitlines():
                self._hands.say("INFO", line)
        else:
            self._hands.say("INFO", "the new workers serve; the old ones finish what they have")
        self._reload_again(now)

    def _fall(self, why: str, status: int, now: float) -> None:
        """Give up the generation that was to take over."""
        for pid, worker in self._workers.items():
            if worker.generation == self._coming:
                self._discard(pid, worker)
        self._coming = None
        if self._current == 0:
            self.status = status  # it has said why
            return
        self._hands.say("ERROR", f"the new workers did not get ready: {why}; the old ones go on")
        self._reload_again(now)

    def _discard(self, pid: int, worker: _Worker) -> None:
        worker.state = State.DISCARDED
        worker.deadline = _NEVER
        self._hands.signal(pid, signal.SIGKILL)

    def _reload_again(self, now: float) -> None:
        if self._again:
            self._again = False
            self.reload(now)

    def _replace(self, pid: int, worker: _Worker, status: int, now: float) -> None:
        if now - worker.started >= _SETTLED:
            self._quick_ends = 0
        pause = min(_LAST_PAUSE, _FIRST_PAUSE * 2.0**self._quick_ends)
        self._quick_ends = min(self._quick_ends + 1, 10)
        self._replacements.append(now + pause)
        story = f"worker {pid} {_ending(status)}; another is started in {pause:g} s"
        self._hands.say("ERROR", story)

    def _look_for_the_end(self) -> None:
        if not self._workers:
            self.status = 0


def _ending(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    return f"was killed by {signal.Signals(-status).name}"
