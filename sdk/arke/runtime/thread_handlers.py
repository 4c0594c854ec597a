"""Run handlers that are plain functions in threads."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any


class ThreadHandlers:
    """The thread pools of one service, one pool for each plain handler.

    A pool of its own, because the loop's default executor has few threads: it would be a hidden
    limit below the one that the service sets.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._pools: list[ThreadPoolExecutor] = []

    def awaitable(
        self, handler: Callable[[Any], Any], max_threads: int
    ) -> Callable[[Any], Awaitable[Any]]:
        """Return a coroutine function as it is; wrap a plain function to run in a thread."""
        call = getattr(handler, "__call__", None)  # noqa: B004 — an object with an async __call__
        if inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(call):
            return handler
        loop = asyncio.get_running_loop()
        pool = ThreadPoolExecutor(max_threads, thread_name_prefix=f"arke-{self._name}")
        self._pools.append(pool)

        def run(value: Any) -> Any:
            try:
                return handler(value)
            except StopIteration as error:
                # A future cannot carry a StopIteration: the caller would wait for ever.
                raise RuntimeError("the handler raised StopIteration") from error

        async def run_in_thread(value: Any) -> Any:
            return await loop.run_in_executor(pool, copy_context().run, run, value)

        return run_in_thread

    def shutdown(self) -> None:
        """Drop queued work. A thread that runs a handler ends with it."""
        for pool in self._pools:
            pool.shutdown(wait=False, cancel_futures=True)
