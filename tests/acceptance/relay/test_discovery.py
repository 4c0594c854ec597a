"""How relays of one network find each other, on one machine."""

from __future__ import annotations

from support.relay_status import wait_for_peers
from support.relays import Relays


async def test_one_seed_is_enough_to_find_everyone(relays: Relays) -> None:
    first = relays.start()
    second = relays.start(join=[first])
    third = relays.start(join=[second])
    for relay, others in (
        (first, [second, third]),
        (second, [first, third]),
        (third, [first, second]),
    ):
        await wait_for_peers(relay, others)


async def test_two_that_know_one_and_the_same_seed_find_each_other(relays: Relays) -> None:
    seed = relays.start()
    one, other = relays.start(join=[seed]), relays.start(join=[seed])
    await wait_for_peers(one, [seed, other])
    await wait_for_peers(other, [seed, one])


async def test_multicast_alone_is_enough(relays: Relays) -> None:
    first, second, third = (relays.start(mdns=True) for _ in range(3))
    for relay, others in (
        (first, [second, third]),
        (second, [first, third]),
        (third, [first, second]),
    ):
        await wait_for_peers(relay, others)


async def test_a_seed_may_start_later(relays: Relays) -> None:
    seed = relays.start()
    early = relays.start(join=[seed])
    seed.process.terminate()
    seed.process.wait(30.0)
    await wait_for_peers(early, [])
    late = relays.start(address=seed.address)
    await wait_for_peers(early, [late])
