"""The supervisor: which workers to start, restart, retire and kill. Makes no system calls itself.

A worker is STARTING until it reports that it is ready, then SERVING. A reload starts a new
generation of workers, which takes over when all of them are ready. Then the workers of the old
generation are RETIRED: they exit when their last connection ends. A worker of a generation that
failed to start is DISCARDED.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from enum import Enum, auto
from typing import Protocol

from arke_proxy.log import log

START_TIMEOUT = 30.0  # seconds for a new generation; the first generation has no limit
_STABLE_AFTER = 10.0  # seconds; a worker that ran this long did not fail at its start
_FIRST_BACKOFF = 0.1  # seconds before a worker is restarted; doubles each time
_LONGEST_BACKOFF = 10.0
_KILL_MARGIN = 5.0  # seconds beyond the grace period until workers are killed
_MAX_RETIRED = 16  # workers; each reload may leave some for as long as a WebSocket lasts
_NEVER = float("inf")


class WorkerState(Enum):
    """The state of one worker."""

    STARTING = auto()
    SERVING = auto()
    RETIRED = auto()
    DISCARDED = auto()


class ProcessControl(Protocol):
    """The actions of the supervisor."""

    def spawn(self) -> int:
        """Start a worker; return its process id."""

    def retire(self, pid: int) -> None:
        """Tell a worker to accept no more, and to exit when its last connection ends."""

    def signal(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to a worker that has not been reaped."""


class _Worker:
    __slots__ = ("deadline", "generation", "started", "state")

    def __init__(self, generation: int, started: float, deadline: float) -> None:
        self.generation = generation
        self.started = started
        self.deadline = deadline  # to become ready
        self.state = WorkerState.STARTING


class Supervisor:
    """Keeps `size` workers running.

    `greeting` has the fields of the event that is logged when the first generation is ready.

    Callers pass the time, in seconds of one monotonic clock.
    """

    def __init__(
        self, control: ProcessControl, size: int, greeting: Mapping[str, str], grace: float
    ) -> None:
        self._control = control
        self._size = size
        self._greeting = greeting
        self._grace = grace
        self._workers: dict[int, _Worker] = {}  # by process id
        self._current = 0  # the generation that serves; 0 before the first one is ready
        self._next: int | None = None  # the generation that is starting
        self._reload_pending = False  # reload again when the next generation has started
        self._restarts: list[float] = []  # when to restart workers
        self._early_exits = 0  # in a row
        self._kill_at = _NEVER
        self._stopping = False
        self.status: int | None = None
        """The exit status, when all workers have exited."""

    @property
    def due(self) -> float:
        """When `tick` must be called next."""
        deadlines = [worker.deadline for worker in self._workers.values()]
        return min((self._kill_at, *self._restarts, *deadlines))

    def start(self, now: float) -> None:
        """Start the first generation. It has no deadline, because it may wait for its relay."""
        self._start_generation(now, _NEVER)

    def reload(self, now: float) -> None:
        """Start a new generation, which replaces the current one when it is ready."""
        if self._stopping:
            return
        if self._next is not None:
            self._reload_pending = True
            return
        log.info("reload: starting new workers")
        self._start_generation(now, now + START_TIMEOUT)

    def stop(self, now: float) -> None:
        """Tell all workers to stop. Those that still run after the grace period are killed."""
        if self._stopping:
            return
        self._stopping = True
        self._restarts.clear()
        self._kill_at = now + self._grace + _KILL_MARGIN
        for pid, worker in self._workers.items():
            worker.deadline = _NEVER
            self._control.signal(pid, signal.SIGTERM)
        self._check_stopped()

    def ready(self, pid: int, now: float) -> None:
        """Handle a worker's report that it accepts connections."""
        worker = self._workers.get(pid)
        if worker is None or worker.state is not WorkerState.STARTING or self._stopping:
            return
        worker.state = WorkerState.SERVING
        worker.deadline = _NEVER
        if worker.generation != self._next:
            log.info("worker ready", worker=pid)
            return
        generation = [w for w in self._workers.values() if w.generation == self._next]
        if len(generation) == 1:  # the first worker starts alone, so that errors are logged once
            for _ in range(self._size - 1):
                deadline = _NEVER if self._current == 0 else now + START_TIMEOUT
                self._spawn(self._next, now, deadline)
        if sum(w.state is WorkerState.SERVING for w in generation) == self._size:
            self._take_over(now)

    def exited(self, pid: int, status: int, now: float) -> None:
        """Handle a worker's exit; `status` is negative for a signal."""
        worker = self._workers.pop(pid)
        if self._stopping:
            self._check_stopped()
        elif worker.state is WorkerState.DISCARDED:
            pass
        elif worker.state is WorkerState.RETIRED:
            if status:
                log.warning("retired worker failed", worker=pid, reason=_describe_exit(status))
        elif worker.generation == self._next:
            self._fail_start(
                f"a new worker {_describe_exit(status)}", status if status >= 0 else 1, now
            )
        else:
            self._schedule_restart(pid, worker, status, now)

    def tick(self, now: float) -> None:
        """Do what is due: kill, give up a generation, restart workers."""
        if now >= self._kill_at:
            self._kill_at = _NEVER
            for pid in self._workers:
                log.warning("worker did not stop in time: killing it", worker=pid)
                self._control.signal(pid, signal.SIGKILL)
        if any(now >= worker.deadline for worker in self._workers.values()):
            self._fail_start(f"the new workers were not ready within {START_TIMEOUT:g} s", 1, now)
        for when in [when for when in self._restarts if now >= when]:
            self._restarts.remove(when)
            self._spawn(self._current, now, _NEVER)

    def _start_generation(self, now: float, deadline: float) -> None:
        self._next = self._current + 1
        self._spawn(self._next, now, deadline)

    def _spawn(self, generation: int, now: float, deadline: float) -> None:
        self._workers[self._control.spawn()] = _Worker(generation, now, deadline)

    def _take_over(self, now: float) -> None:
        """Make the next generation the current one, and retire the old one."""
        assert self._next is not None
        first = self._current == 0
        self._current, self._next = self._next, None
        self._restarts.clear()
        for pid, worker in self._workers.items():
            if worker.generation != self._current and worker.state is WorkerState.SERVING:
                worker.state = WorkerState.RETIRED
                self._control.retire(pid)
            elif worker.generation != self._current and worker.state is WorkerState.STARTING:
                self._discard(pid, worker)
        retired = [pid for pid, w in self._workers.items() if w.state is WorkerState.RETIRED]
        for pid in retired[:-_MAX_RETIRED]:
            self._control.signal(pid, signal.SIGTERM)
        if first:
            log.info("proxy listening", **self._greeting)
        else:
            log.info("reload: the new workers are ready", retired=len(retired))
        self._run_pending_reload(now)

    def _fail_start(self, reason: str, status: int, now: float) -> None:
        """Give up the generation that is starting."""
        for pid, worker in self._workers.items():
            if worker.generation == self._next:
                self._discard(pid, worker)
        self._next = None
        if self._current == 0:
            self.status = status  # the worker has logged why
            return
        log.error("reload failed: the old workers continue", reason=reason)
        self._run_pending_reload(now)

    def _discard(self, pid: int, worker: _Worker) -> None:
        worker.state = WorkerState.DISCARDED
        worker.deadline = _NEVER
        self._control.signal(pid, signal.SIGKILL)

    def _run_pending_reload(self, now: float) -> None:
        if self._reload_pending:
            self._reload_pending = False
            self.reload(now)

    def _schedule_restart(self, pid: int, worker: _Worker, status: int, now: float) -> None:
        if now - worker.started >= _STABLE_AFTER:
            self._early_exits = 0
        backoff = min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2.0**self._early_exits)
        self._early_exits = min(self._early_exits + 1, 10)
        self._restarts.append(now + backoff)
        log.error(
            "worker exited: restarting it",
            worker=pid,
            reason=_describe_exit(status),
            seconds=backoff,
        )

    def _check_stopped(self) -> None:
        if not self._workers:
            self.status = 0


def _describe_exit(status: int) -> str:
    if status >= 0:
        return f"exited with status {status}"
    return f"was killed by {signal.Signals(-status).name}"
