"""Active checks: asking each backend now and then whether it is well."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Protocol

from arke_proxy.backends.address import BackendAddress
from arke_proxy.balancing.balancer import BackendStatus
from arke_proxy.balancing.health_probe import CheckFailed, CheckSkipped, Probe

_EVERY = 2.0  # seconds
_JITTER = 0.2  # of them, so that many proxies do not knock in step
AT_ONCE = 32
"""Checks of all clusters, each on a connection of its own."""


class HealthCheckTarget(Protocol):
    """Whoever knows backends that can be checked."""

    def statuses(self) -> Sequence[BackendStatus]:
        """Return those that are to be checked."""

    def check_failed(self, address: BackendAddress, fault: str, *, reachable: bool) -> None:
        """Learn that a check failed; `fault` completes "its check …"."""

    def check_passed(self, address: BackendAddress) -> None:
        """Learn that a check went well."""


class HealthChecker:
    """Checks all backends every two seconds, from `start` to `stop`."""

    def __init__(
        self,
        checked: HealthCheckTarget,
        probe: Probe,
        few: asyncio.Semaphore,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._checked = checked
        self._probe = probe
        self._draw = draw
        self._few = few  # are under way at once, of all clusters together
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._running = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._running:
            self._running.cancel()
            await asyncio.wait((self._running,))

    async def _run(self) -> None:
        while True:
            known = [one.address for one in self._checked.statuses()]
            async with asyncio.TaskGroup() as round_:
                for address in known:
                    round_.create_task(self._check(address))
                round_.create_task(asyncio.sleep(_EVERY * (1 + _JITTER * (2 * self._draw() - 1))))

    async def _check(self, address: BackendAddress) -> None:
        async with self._few:
            try:
                await self._probe(address)
            except CheckSkipped:
                pass
            except CheckFailed as error:
                self._checked.check_failed(address, str(error), reachable=error.reachable)
            else:
                self._checked.check_passed(address)
