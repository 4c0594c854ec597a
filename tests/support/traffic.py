"""Steady callers, of which none may fail, and waits for what a relay knows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self

import arke
from support.relays import LIMIT, Relay, members


def echo(cluster: str, port: int) -> arke.Service:
    service = arke.Service(cluster, port=port)

    @service.on_request
    async def answer(request: arke.Request) -> bytes:
        return request.body

    return service


class Traffic:
    """Callers that each ask a cluster of echoes again and again until the block ends."""

    def __init__(self, cluster: str, meshes: Sequence[arke.Mesh]) -> None:
        self.started = 0
        self.replied = 0
        self._cluster = cluster
        self._meshes = meshes
        self._stopped = False

    async def __aenter__(self) -> Self:
        self._callers = [asyncio.ensure_future(self._call(mesh)) for mesh in self._meshes]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped = True
        async with asyncio.timeout(LIMIT):
            await asyncio.gather(*self._callers)
        assert self.started == self.replied > 0

    async def wait_for_replies(self, answers: int = 50) -> None:
        """Wait for so many further answers. Raises what a caller raised."""
        goal = self.replied + answers
        async with asyncio.timeout(LIMIT):
            while self.replied < goal:
                self.raise_failures()
                await asyncio.sleep(0.01)

    def raise_failures(self) -> None:
        """Raise what a caller raised."""
        for caller in self._callers:
            if caller.done():
                caller.result()

    async def _call(self, mesh: arke.Mesh) -> None:
        while not self._stopped:
            self.started += 1
            body = str(self.started).encode()
            assert await mesh.request(self._cluster, body, timeout=LIMIT) == body
            self.replied += 1
            await asyncio.sleep(0)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it holds. Raises TimeoutError."""
    async with asyncio.timeout(LIMIT):
        while not await condition():
            await asyncio.sleep(0.02)


async def until_members(mesh: arke.Mesh, cluster: str, count: int) -> None:
    async def known() -> bool:
        return await members(mesh, cluster) == count

    await until(known)


async def until_topic(mesh: arke.Mesh, topic: str) -> None:
    """Wait until a peer of the mesh's relay is known to listen to a topic."""

    async def known() -> bool:
        found = (await mesh.status())["topics"].get(topic, {})
        return int(found.get("elsewhere", 0)) > 0

    await until(known)


async def peers(relay: Relay) -> list[dict[str, Any]]:
    """Whom a relay counts among its peers, in whatever state."""
    async with arke.connect(port=relay.port) as mesh:
        found: list[dict[str, Any]] = (await mesh.status())["peers"]
        return found


async def until_peers(relay: Relay, others: Sequence[Relay]) -> None:
    """Wait until a relay is linked with these and no others."""
    wanted = sorted((other.address, "linked") for other in others)

    async def met() -> bool:
        return sorted((peer["address"], peer["state"]) for peer in await peers(relay)) == wanted

    await until(met)
