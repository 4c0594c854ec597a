"""Threads that run functions for an event loop, and do not keep the process alive.

The threads of `concurrent.futures` are joined when the interpreter exits, so that a function that
hangs makes its process unkillable by SIGTERM. The default executor of a loop has few threads too.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

_Work = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[..., Any], tuple[Any, ...]]


class DaemonThreads:
    """At most `limit` threads, each started when it is needed and kept until `shutdown`."""

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._started = 0
        self._idle = 0  # threads without work
        self._waiting = 0  # functions that wait for a thread
        self._lock = threading.Lock()
        self._queue: SimpleQueue[_Work | None] = SimpleQueue()

    def run(self, function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        """Call the function in a thread, and return the future of its result."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        with self._lock:
            if self._idle:
                self._idle -= 1
            elif self._started < self._limit:
                self._started += 1
                name = f"{self._name}-{self._started}"
                threading.Thread(target=self._work, name=name, daemon=True).start()
            else:
                self._waiting += 1
        self._queue.put((loop, future, function, arguments))
        return future

    def shutdown(self) -> None:
        """End every thread, after the function that it runs. Work that waits is dropped."""
        while not self._queue.empty():
            self._queue.get()
        for _ in range(self._started):
            self._queue.put(None)

    def _work(self) -> None:
        while (work := self._queue.get()) is not None:
            loop, future, function, arguments = work
            try:
                result, error = function(*arguments), None
            except BaseException as raised:  # noqa: BLE001 — the handler's caller gets it
                result, error = None, raised
            with self._lock:
                if self._waiting:
                    self._waiting -= 1
                else:
                    self._idle += 1
            try:
                loop.call_soon_threadsafe(_finish, future, result, error)
            except RuntimeError:
                return  # the loop is closed: the process exits
            del work, function, arguments, result, error, future


def _finish(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return  # the handler's task was cancelled
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
