"""AskBalancer with prefetched backend addresses, when one of these backends fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

import arke
from arke_proxy.backends.address import BackendAddress
from arke_proxy.balancing.ask_balancer import AskBalancer
from arke_proxy.balancing.named_addresses import NamedAddresses
from support.proxy_harness import AddressService
from support.relays import Relays
from support.waiting import LIMIT

ONE, TWO = BackendAddress("127.0.0.1", 1), BackendAddress("127.0.0.1", 2)


@pytest.fixture
async def ask(relays: Relays) -> AsyncIterator[AskBalancer]:
    """A balancer that has prefetched ONE and TWO.

    Its cluster answers no further request, and its clock is fixed, so that nothing expires.
    """
    relay = relays.start()
    cluster = AddressService("web", relay.port)
    cluster.answers = [str(ONE), str(TWO), *[""] * 100]
    cluster.join()
    try:
        async with arke.connect(port=relay.port) as mesh, asyncio.timeout(LIMIT):
            named = NamedAddresses()
            for member in await mesh.members("web"):
                named.member_joined(member, mesh.node)
            balancer = AskBalancer(mesh, "web", 80, named, clock=lambda: 100.0)
            for _ in range(3):  # the demand makes it prefetch two addresses
                assert balancer.pick_now(()) is None
            while len(balancer.statuses()) < 2:
                await asyncio.sleep(0.01)
            yield balancer
    finally:
        cluster.leave()


async def test_retry_uses_prefetched_address_of_another_backend(ask: AskBalancer) -> None:
    assert ask.pick_now(()) == ONE
    ask.connect_failed(ONE)
    assert await ask.pick({ONE}) == TWO


async def test_prefetched_address_of_failed_backend_is_skipped(ask: AskBalancer) -> None:
    ask.connect_failed(ONE)
    assert ask.pick_now(()) == TWO
