"""Active health checks: probe each backend of a cluster every two seconds."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Protocol

from arke_proxy.backends.address import BackendAddress
from arke_proxy.balancing.balancer import BackendStatus
from arke_proxy.balancing.health_probe import CheckFailed, CheckSkipped, HealthProbe

_INTERVAL = 2.0  # seconds
_JITTER = 0.2  # largest random change, as a share of the interval: proxies do not probe in step
MAX_CONCURRENT_CHECKS = 32
"""Checks that run at once, of all clusters together. Each uses a connection of its own."""


class HealthCheckTarget(Protocol):
    """A balancer whose backends are checked."""

    def statuses(self) -> Sequence[BackendStatus]:
        """Return the backends to check."""

    def check_failed(self, address: BackendAddress, fault: str, *, reachable: bool) -> None:
        """Record a failed check; `fault` completes "health check failed: …".

        `reachable`: the proxy could connect to the backend.
        """

    def check_passed(self, address: BackendAddress) -> None:
        """Record a passed check."""


class HealthChecker:
    """Checks all backends of one cluster, from `start` to `stop`."""

    def __init__(
        self,
        target: HealthCheckTarget,
        probe: HealthProbe,
        concurrency: asyncio.Semaphore,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._target = target
        self._probe = probe
        self._draw = draw
        self._concurrency = concurrency  # shared by the checkers of all clusters
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _run(self) -> None:
        while True:
            addresses = [status.address for status in self._target.statuses()]
            async with asyncio.TaskGroup() as round_:
                for address in addresses:
                    round_.create_task(self._check(address))
                jitter = _JITTER * (2 * self._draw() - 1)
                round_.create_task(asyncio.sleep(_INTERVAL * (1 + jitter)))

    async def _check(self, address: BackendAddress) -> None:
        async with self._concurrency:
            try:
                await self._probe(address)
            except CheckSkipped:
                pass
            except CheckFailed as error:
                self._target.check_failed(address, str(error), reachable=error.reachable)
            else:
                self._target.check_passed(address)
