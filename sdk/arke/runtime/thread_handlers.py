"""Run handlers that are plain functions in threads."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Any

from arke.runtime.daemon_threads import DaemonThreads


class ThreadHandlers:
    """The threads of one service, at most `max_threads` for each plain handler."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._pools: list[DaemonThreads] = []

    def awaitable(
        self, handler: Callable[[Any], Any] | None, max_threads: int
    ) -> Callable[[Any], Awaitable[Any]] | None:
        """Return a coroutine function as it is; wrap a plain function to run in a thread."""
        call = getattr(handler, "__call__", None)  # noqa: B004 — an object with an async __call__
        if inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(call):
            return handler
        if handler is None:
            return None
        plain = handler
        pool = DaemonThreads(max_threads, f"arke-{self._name}")
        self._pools.append(pool)

        def run(value: Any) -> Any:
            try:
                return plain(value)
            except StopIteration as error:
                # A future cannot carry a StopIteration: the caller would wait for ever.
                raise RuntimeError("the handler raised StopIteration") from error

        async def run_in_thread(value: Any) -> Any:
            return await pool.run(copy_context().run, run, value)

        return run_in_thread

    def shutdown(self) -> None:
        """End the threads, each after the handler that it runs."""
        for pool in self._pools:
            pool.shutdown()
