"""The type of all targets: how to play an input to a codec, and how to mutate it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random

from fuzz.finding import Finding
from fuzz.simulated_loop import SimulatedLoop

_MAX_INPUT = 16 * 1024


@dataclass(frozen=True)
class Target:
    """`play` raises Finding when an invariant does not hold; `mutate` changes an input."""

    play: Callable[[SimulatedLoop, bytes], Awaitable[None]]
    mutate: Callable[[bytes, Random], bytes]

    def run(self, data: bytes) -> None:
        """Play one input and check that no task or callback fails. Raises Finding."""
        loop = SimulatedLoop()
        try:
            loop.run_until_complete(self.play(loop, data[:_MAX_INPUT]))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.check()
        except RecursionError as error:
            raise Finding("nested input exceeds the interpreter's recursion limit") from error
        finally:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(_finish_cancelled_tasks())
            loop.close()


async def _finish_cancelled_tasks() -> None:
    """Run the loop until cancelled tasks have ended."""
    for _ in range(20):
        await asyncio.sleep(0)
