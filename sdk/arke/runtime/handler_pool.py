"""Handler pool: run a handler over a queue in a bounded number of tasks, not one task per item."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Generic, TypeVar

_Work = TypeVar("_Work")


def is_task_cancelled() -> bool:
    """Whether the current task is being cancelled, and not only a task that it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class HandlerPool(Generic[_Work]):
    """At most `limit` worker tasks; each takes work until the queue is empty.

    A worker that takes an item while more are queued wakes the next worker before it runs the
    handler. If that handler suspends, the woken worker continues with the queue. If no handler
    suspends, the first worker empties the queue alone, without a task or a task switch for each
    item. `run` must not raise.
    """

    def __init__(self, limit: int, run: Callable[[_Work], Awaitable[None]]) -> None:
        self._loop = asyncio.get_running_loop()
        self._limit = limit
        self._run = run
        self._queue: deque[_Work] = deque()
        self._resting: list[asyncio.Future[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._waking = False  # a worker was woken and has not run yet
        self._busy = 0
        self._stopped = False
        self._idle: asyncio.Future[None] | None = None
        self._context = copy_context()
        self._running: dict[asyncio.Task[None], _Work] = {}
        self._interrupted: set[asyncio.Task[None]] = set()  # workers whose handlers are cancelled
        # Cancelled items that are still in the queue. By id(), because an item may not be hashable.
        self._cancelled: set[int] = set()

    @property
    def queued(self) -> int:
        """Number of items that wait for a worker and were not cancelled."""
        return len(self._queue) - len(self._cancelled)

    def put(self, work: _Work) -> None:
        """Queue an item and wake a worker."""
        self._queue.append(work)
        if not self._waking:
            self._wake()

    def running(self) -> list[_Work]:
        """Return the items whose handlers run."""
        return list(self._running.values())

    def cancel_running(self, work: _Work) -> None:
        """Cancel the handler of an item, if it runs. The cost grows with `limit`."""
        for task, running in self._running.items():
            if running is work:
                self._interrupted.add(task)
                task.cancel()
                return

    def cancel_queued(self, work: _Work) -> None:
        """Cancel an item whose handler has not been started.

        The cost is constant on average: the item stays in the queue until a worker reaches it or
        cancelled items are the larger part of the queue.
        """
        self._cancelled.add(id(work))
        if 2 * len(self._cancelled) > len(self._queue):
            self._queue.extend(self.take_queued())
            self._notify_idle()

    def take_queued(self) -> list[_Work]:
        """Empty the queue. Returns the items that were not cancelled."""
        cancelled = self._cancelled
        queued = [work for work in self._queue if id(work) not in cancelled]
        self._queue.clear()
        cancelled.clear()
        return queued

    async def wait_idle(self) -> None:
        """Wait until nothing is queued and no handler runs."""
        while self._queue or self._busy:
            if self._idle is None or self._idle.done():
                self._idle = self._loop.create_future()
            await asyncio.shield(self._idle)

    async def stop(self) -> list[_Work]:
        """Cancel every worker and its handler. Returns the items that were not started."""
        self._stopped = True
        queued = self.take_queued()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        return queued

    def _wake(self) -> None:
        """Wake a resting worker, or start one below the limit."""
        if self._stopped:
            return
        while self._resting:
            rest = self._resting.pop()
            if not rest.done():
                rest.set_result(None)
                self._waking = True
                return
        if len(self._tasks) < self._limit:
            task = self._loop.create_task(self._work(), context=self._context.copy())
            self._tasks.add(task)
            task.add_done_callback(self._on_worker_done)
            self._waking = True

    async def _work(self) -> None:
        """Run handlers until the queue is empty, then rest; the life of one worker."""
        queue = self._queue
        run = self._run
        clean_context = copy_context()
        running = self._running
        cancelled = self._cancelled
        interrupted = self._interrupted
        task = asyncio.current_task()
        assert task
        while True:
            self._waking = False
            while queue:
                work = queue.popleft()
                if cancelled and id(work) in cancelled:
                    cancelled.remove(id(work))
                    continue
                running[task] = work
                self._busy += 1
                if queue and not self._waking:
                    self._wake()
                try:
                    await run(work)
                finally:
                    self._busy -= 1
                # A context variable that the handler set, or a cancellation that it ignored, must
                # not reach the next handler. So this worker ends, and a new one replaces it.
                if self._stopped or task in interrupted or copy_context() != clean_context:
                    return
            running.pop(task, None)
            self._notify_idle()
            rest = self._loop.create_future()
            self._resting.append(rest)
            await rest

    def _on_worker_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._running.pop(task, None)
        self._interrupted.discard(task)
        self._waking = False  # this worker may have been the one that was woken
        if self._queue:
            self._wake()
        else:
            self._notify_idle()

    def _notify_idle(self) -> None:
        if self._queue or self._busy:
            return
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
