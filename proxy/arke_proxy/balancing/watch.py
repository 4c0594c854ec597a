"""Following who is in a cluster."""

from __future__ import annotations

import asyncio

import arke
from arke_proxy.balancing.members import MembersBalancer

_FIRST_LISTING = 3.0  # seconds; a relay that has just started needs two to know its peers'


class MembershipWatch:
    """Tells a `Members` who joins and who leaves, from `start` to `stop`.

    While the relay is away everybody known stays known; what changed meanwhile is told when it is
    back.
    """

    def __init__(self, mesh: arke.Mesh, cluster: str, members: MembersBalancer) -> None:
        self._mesh = mesh
        self._cluster = cluster
        self._members = members
        self._following: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Follow from now on; return once the members are known, or the relay takes too long."""
        self._following = asyncio.create_task(self._follow())
        try:
            async with asyncio.timeout(_FIRST_LISTING):
                listed = await self._mesh.members(self._cluster)
        except TimeoutError:
            return
        for member in listed:
            self._members.joined(member, self._mesh.node)

    async def stop(self) -> None:
        if self._following:
            self._following.cancel()
            await asyncio.wait((self._following,))

    async def _follow(self) -> None:
        try:
            async for joined, member in self._mesh.watch(self._cluster):
                if joined:
                    self._members.joined(member, self._mesh.node)
                else:
                    self._members.left(member)
        except arke.MeshClosed:
            pass
