"""Options and event loop of every command that attaches to the relay."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import arke
from arke.program import flags, logging

RELAY_TIMEOUT = 10.0
"""Seconds for what a command does at the relay alone."""


@dataclass(frozen=True, slots=True)
class AttachOptions:
    """The address of the relay."""

    port: int = flags.flag(
        "N", parse=flags.port, default=55555, help="port of the relay on 127.0.0.1"
    )
    path: str | None = flags.flag("SOCKET", help="Unix socket of the relay, instead of the port")

    def connect(self) -> arke.Mesh:
        """Attach without retries, so that the user sees at once that no relay runs."""
        return arke.connect(port=self.port, path=self.path, wait=0.0)


def run(
    work: Coroutine[Any, Any, None],
    *,
    limit: float | None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> None:
    """Run a command. Raises RelayUnreachable if it takes more than `limit` seconds."""

    async def bounded() -> None:
        # The SDK waits for a lost relay to return; the user should not have to.
        async with asyncio.timeout(limit):
            await work

    logging.configure("arke", "warn" if limit is None else "error")
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(bounded())
    except arke.ArkeError:
        raise
    except TimeoutError:
        raise arke.RelayUnreachable(
            f"timed out after {limit:g} s: is the relay stopped or overloaded?"
        ) from None
