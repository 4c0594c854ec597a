"""Active health checks: how the result of a probe is reported."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from arke_proxy.backends.address import BackendAddress
from arke_proxy.balancing.balancer import BackendStatus
from arke_proxy.balancing.health_checks import HealthChecker
from arke_proxy.balancing.health_probe import CheckFailed, CheckSkipped

HERE = BackendAddress("127.0.0.1", 80)


class HealthCheckTarget:
    def __init__(self) -> None:
        self.learned: list[str] = []

    def statuses(self) -> Sequence[BackendStatus]:
        return [BackendStatus(HERE, 1.0, 0, ejected=False, in_use=True)]

    def check_failed(self, address: BackendAddress, fault: str, *, reachable: bool) -> None:
        assert (address, reachable) == (HERE, True)
        self.learned.append(fault)

    def check_passed(self, address: BackendAddress) -> None:
        assert address == HERE
        self.learned.append("passed")


@pytest.mark.parametrize(
    ("outcome", "learned"),
    [(None, ["passed"]), (CheckFailed("broke"), ["broke"]), (CheckSkipped(), [])],
)
async def test_check_result_is_reported(outcome: Exception | None, learned: list[str]) -> None:
    checked = HealthCheckTarget()
    asked = asyncio.Event()

    async def probe(address: BackendAddress) -> None:
        assert address == HERE
        asked.set()
        if outcome:
            raise outcome

    checks = HealthChecker(checked, probe, asyncio.Semaphore(1), lambda: 0.5)
    checks.start()
    await asked.wait()
    await checks.stop()
    assert checked.learned == learned
