"""What every target is: a codec that octets are played to, and what those are likely to be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random

from fuzz.finding import Finding
from fuzz.loop import FakeLoop

_LONGEST = 16 * 1024


@dataclass(frozen=True)
class Target:
    """`play` raises when a promise is broken, `mutate` makes another input of one."""

    play: Callable[[FakeLoop, bytes], Awaitable[None]]
    mutate: Callable[[bytes, Random], bytes]

    def run(self, data: bytes) -> None:
        """Play one input, and see that it leaves nothing behind. Raises what is a finding."""
        loop = FakeLoop()
        try:
            loop.run_until_complete(self.play(loop, data[:_LONGEST]))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.check()
        except RecursionError as error:  # or the interpreter may have none left to say so with
            raise Finding("what an outsider sent is nested too deeply to be handled") from error
        finally:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(_turns())
            loop.close()


async def _turns() -> None:
    """Let what was cancelled end."""
    for _ in range(20):
        await asyncio.sleep(0)
