"""Runs a handler over a queue of work in a bounded number of tasks, without a task per message."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Generic, TypeVar

_Work = TypeVar("_Work")


class Workers(Generic[_Work]):
    """At most `limit` tasks, each taking work until the queue is empty.

    A worker that takes an item while more are queued wakes the next worker before it starts: if
    its own item waits for something, the queue still moves; if nothing ever waits, one worker
    empties it and the one that was woken finds nothing. So handlers that answer at once cost no
    task and no switch each. `run` must not raise.
    """

    def __init__(self, limit: int, run: Callable[[_Work], Awaitable[None]]) -> None:
        self._loop = asyncio.get_running_loop()
        self._limit = limit
        self._run = run
        self._queue: deque[_Work] = deque()
        self._resting: list[asyncio.Future[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._waking = False
        self._busy = 0
        self._stopped = False
        self._idle: asyncio.Future[None] | None = None
        self._context = copy_context()
        self._running: dict[asyncio.Task[None], _Work] = {}

    def put(self, work: _Work) -> None:
        self._queue.append(work)
        if not self._waking:
            self._wake()

    def cancel(self, unwanted: Callable[[_Work], bool]) -> tuple[list[_Work], int]:
        """Cancel what is unwanted. Returns what had not begun, and how many were running."""
        left = [work for work in self._queue if unwanted(work)]
        for work in left:
            self._queue.remove(work)
        running = [task for task, work in self._running.items() if unwanted(work)]
        for task in running:
            task.cancel()
        return left, len(running)

    async def idle(self) -> None:
        """Wait until nothing is queued and nothing runs."""
        while self._queue or self._busy:
            if self._idle is None or self._idle.done():
                self._idle = self._loop.create_future()
            await asyncio.shield(self._idle)

    async def stop(self) -> list[_Work]:
        """Cancel every worker, with what it runs; begin nothing more. Returns what never began."""
        self._stopped = True
        left = list(self._queue)
        self._queue.clear()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        return left

    def _wake(self) -> None:
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
            task.add_done_callback(self._retired)
            self._waking = True

    async def _work(self) -> None:
        queue = self._queue
        run = self._run
        clean = copy_context()
        running = self._running
        task = asyncio.current_task()
        assert task
        while True:
            self._waking = False
            while queue:
                work = queue.popleft()
                running[task] = work
                self._busy += 1
                if queue and not self._waking:
                    self._wake()
                try:
                    await run(work)
                finally:
                    self._busy -= 1
                # What the handler left in its context must not reach the next one.
                if self._stopped or copy_context() != clean:
                    return
            running.pop(task, None)
            self._settle()
            rest = self._loop.create_future()
            self._resting.append(rest)
            await rest

    def _retired(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._running.pop(task, None)
        self._waking = False  # it may be the one that was woken
        if self._queue:
            self._wake()
        else:
            self._settle()

    def _settle(self) -> None:
        if not self._busy and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
