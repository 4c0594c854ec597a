"""What every command that attaches to the relay shares."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import arke
from arke.program import flags

PROMPTLY = 10.0
"""Seconds for a command that only talks to the relay."""


@dataclass(frozen=True, slots=True)
class Attached:
    """Where to attach."""

    port: int = flags.flag(
        "N", parse=flags.port, default=55555, help="port of the relay on 127.0.0.1"
    )
    path: str | None = flags.flag("SOCKET", help="Unix socket of the relay, instead of the port")

    def connect(self) -> arke.Mesh:
        """Attach at once or not at all: a person who waits wants to know."""
        return arke.connect(port=self.port, path=self.path, wait=0.0)


def run(
    work: Coroutine[Any, Any, None],
    *,
    limit: float | None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> None:
    """Run a command to its end. Raises RelayUnreachable if that takes over `limit` seconds."""

    async def bounded() -> None:
        # While the relay is away the SDK waits for it to come back; a person need not.
        async with asyncio.timeout(limit):
            await work

    show_log(logging.WARNING if limit is None else logging.ERROR)
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(bounded())
    except arke.ArkeError:
        raise
    except TimeoutError:
        raise arke.RelayUnreachable(
            f"not done after {limit:g} s: is the relay stopped, or overloaded?"
        ) from None


def show_log(level: int) -> None:
    """Let the SDK speak on stderr: of a relay that went away, to whoever stays to see it back."""
    logging.basicConfig(format="arke: %(message)s", level=level)
