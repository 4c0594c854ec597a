"""Checks of back ends: what counts against one, and what does not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from arke_proxy.backends.address import Address
from arke_proxy.balancing.balancer import Standing
from arke_proxy.balancing.health_checks import Checks
from arke_proxy.balancing.health_probe import NotAsked, Unwell

HERE = Address("127.0.0.1", 80)


class Checked:
    def __init__(self) -> None:
        self.learned: list[str] = []

    def standings(self) -> Sequence[Standing]:
        return [Standing(HERE, 1.0, 0, out=False, used=True)]

    def check_failed(self, address: Address, fault: str, *, reachable: bool) -> None:
        assert (address, reachable) == (HERE, True)
        self.learned.append(fault)

    def check_passed(self, address: Address) -> None:
        assert address == HERE
        self.learned.append("passed")


@pytest.mark.parametrize(
    ("outcome", "learned"), [(None, ["passed"]), (Unwell("broke"), ["broke"]), (NotAsked(), [])]
)
async def test_what_a_check_shows(outcome: Exception | None, learned: list[str]) -> None:
    checked = Checked()
    asked = asyncio.Event()

    async def probe(address: Address) -> None:
        assert address == HERE
        asked.set()
        if outcome:
            raise outcome

    checks = Checks(checked, probe, asyncio.Semaphore(1), lambda: 0.5)
    checks.start()
    await asked.wait()
    await checks.stop()
    assert checked.learned == learned
