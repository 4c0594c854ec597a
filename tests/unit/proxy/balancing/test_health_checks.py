"""Active health checks: how the result of a probe is reported."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from arke_proxy.backends.address import BackendAddress
from arke_proxy.balancing.balancer import BackendStatus
from arke_proxy.balancing.health_checks import HealthChecker
from arke_proxy.balancing.health_probe import CheckFailed, CheckSkipped

ADDRESS = BackendAddress("127.0.0.1", 80)


class RecordingTarget:
    """A balancer that has one backend and records the results of its checks."""

    def __init__(self) -> None:
        self.results: list[str] = []

    def statuses(self) -> Sequence[BackendStatus]:
        return [BackendStatus(ADDRESS, 1.0, 0, ejected=False, in_use=True)]

    def check_failed(self, address: BackendAddress, reason: str, *, reachable: bool) -> None:
        assert (address, reachable) == (ADDRESS, True)
        self.results.append(reason)

    def check_passed(self, address: BackendAddress) -> None:
        assert address == ADDRESS
        self.results.append("passed")


@pytest.mark.parametrize(
    ("error", "results"),
    [(None, ["passed"]), (CheckFailed("status 500"), ["status 500"]), (CheckSkipped(), [])],
)
async def test_check_result_is_reported(error: Exception | None, results: list[str]) -> None:
    target = RecordingTarget()
    probed = asyncio.Event()

    async def probe(address: BackendAddress) -> None:
        assert address == ADDRESS
        probed.set()
        if error:
            raise error

    checks = HealthChecker(target, probe, asyncio.Semaphore(1), lambda: 0.5)
    checks.start()
    await probed.wait()
    await checks.stop()
    assert target.results == results
