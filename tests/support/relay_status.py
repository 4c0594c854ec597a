"""Read a relay's members, topics and peers, and wait for them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import arke
from support.relays import Relay
from support.waiting import wait_until_async


async def member_count(mesh: arke.Mesh, cluster: str) -> int:
    """Return the number of members of a cluster that the relay of `mesh` knows."""
    known: dict[str, Any] = (await mesh.status())["clusters"].get(cluster, {})
    return int(known.get("here", 0) + known.get("elsewhere", 0))


async def wait_for_members(mesh: arke.Mesh, cluster: str, count: int) -> None:
    async def known() -> bool:
        return await member_count(mesh, cluster) == count

    await wait_until_async(known)


async def wait_for_topic(mesh: arke.Mesh, topic: str) -> None:
    """Wait until the mesh's relay knows a peer with a subscriber of a topic."""

    async def known() -> bool:
        found = (await mesh.status())["topics"].get(topic, {})
        return int(found.get("elsewhere", 0)) > 0

    await wait_until_async(known)


async def peer_states(relay: Relay) -> list[dict[str, Any]]:
    """Return the status entries of all peers of a relay, in any state."""
    async with arke.connect(port=relay.port) as mesh:
        found: list[dict[str, Any]] = (await mesh.status())["peers"]
        return found


async def wait_for_peers(relay: Relay, others: Sequence[Relay]) -> None:
    """Wait until a relay is linked with exactly these peers."""
    wanted = sorted((other.address, "linked") for other in others)

    async def met() -> bool:
        return (
            sorted((peer["address"], peer["state"]) for peer in await peer_states(relay)) == wanted
        )

    await wait_until_async(met)


async def wait_until_unused(*relays: Relay) -> None:
    """Wait until these relays have no programs, clusters and topics."""
    async with AsyncExitStack() as stack:
        meshes = [
            await stack.enter_async_context(arke.connect(port=port))
            for port in {relay.port for relay in relays}
        ]

        async def unused() -> bool:
            found = [await mesh.status() for mesh in meshes]
            return all(
                status["programs"] == 1 and not status["clusters"] and not status["topics"]
                for status in found
            )

        await wait_until_async(unused)
