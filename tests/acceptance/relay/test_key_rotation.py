"""Key rotation: a network replaces its RSA key node by node, under load."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import arke
from support.relay_status import peer_states, wait_for_members, wait_for_peers
from support.relays import Relay, Relays
from support.traffic import Traffic, echo_service
from support.waiting import LIMIT


def restart_with_keys(
    relays: Relays, relay: Relay, keys: Sequence[Path], join: Sequence[Relay]
) -> Relay:
    """Stop a relay with SIGTERM and start it again at the same address with other keys."""
    relay.process.terminate()
    assert relay.process.wait(LIMIT) == 0
    return relays.start(keys=keys, address=relay.address, port=relay.port, join=join)


async def test_rolling_key_rotation_under_load_fails_no_request(relays: Relays) -> None:
    old, new = relays.key, relays.new_key()
    first = relays.start()
    nodes = [first, relays.start(join=[first]), relays.start(join=[first])]
    async with AsyncExitStack() as stack:
        for node in nodes:
            await stack.enter_async_context(echo_service("work", node.port))
        meshes = [await stack.enter_async_context(arke.connect(port=node.port)) for node in nodes]
        for mesh in meshes:
            await wait_for_members(mesh, "work", 3)
        async with Traffic("work", meshes * 3) as traffic:
            for keys in ([old, new], [new, old], [new]):
                for at, node in enumerate(nodes):
                    others = [other for other in nodes if other is not node]
                    nodes[at] = await asyncio.to_thread(
                        restart_with_keys, relays, node, keys, others
                    )
                    for mesh in meshes:
                        await wait_for_members(mesh, "work", 3)
                    await traffic.wait_for_replies()
    for node in nodes:
        await wait_for_peers(node, [other for other in nodes if other is not node])


async def test_relay_with_only_the_old_key_is_not_admitted(relays: Relays) -> None:
    old, new = relays.key, relays.new_key()
    rotated = relays.start(keys=[new])
    transitional = relays.start(keys=[new, old], join=[rotated])
    outdated = relays.start(keys=[old], join=[rotated])
    await wait_for_peers(rotated, [transitional])
    outdated.process.wait_for_line("cannot reach peer", LIMIT)
    assert await peer_states(outdated) == []
