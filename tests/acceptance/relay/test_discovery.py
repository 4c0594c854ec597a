"""Relays of one network discover each other on one machine: seeds and mDNS."""

from __future__ import annotations

from support.relay_status import wait_for_peers
from support.relays import Relays


async def test_one_seed_discovers_all_peers(relays: Relays) -> None:
    first = relays.start()
    second = relays.start(join=[first])
    third = relays.start(join=[second])
    for relay, others in (
        (first, [second, third]),
        (second, [first, third]),
        (third, [first, second]),
    ):
        await wait_for_peers(relay, others)


async def test_relays_with_a_common_seed_discover_each_other(relays: Relays) -> None:
    seed = relays.start()
    one, other = relays.start(join=[seed]), relays.start(join=[seed])
    await wait_for_peers(one, [seed, other])
    await wait_for_peers(other, [seed, one])


async def test_mdns_alone_discovers_all_peers(relays: Relays) -> None:
    first, second, third = (relays.start(mdns=True) for _ in range(3))
    for relay, others in (
        (first, [second, third]),
        (second, [first, third]),
        (third, [first, second]),
    ):
        await wait_for_peers(relay, others)


async def test_relay_joins_a_seed_that_starts_later(relays: Relays) -> None:
    seed = relays.start()
    early = relays.start(join=[seed])
    seed.process.terminate()
    seed.process.wait(30.0)
    await wait_for_peers(early, [])
    late = relays.start(address=seed.address)
    await wait_for_peers(early, [late])
