"""Watch the members of a cluster, and keep balancers up to date."""

from __future__ import annotations

import asyncio
from typing import Protocol

import arke

_FIRST_LIST_TIMEOUT = 3.0  # seconds; a relay that has just started needs two to know all members


class MembershipObserver(Protocol):
    """Gets each member that joins or leaves. `node` is the proxy's own node."""

    def member_joined(self, member: arke.Member, node: arke.Node) -> None: ...

    def member_left(self, member: arke.Member) -> None: ...


class MembershipWatch:
    """Reports members that join and leave to its observers, from `start` to `stop`.

    While the relay is disconnected the known members stay. Changes that were missed are reported
    after it reconnects.
    """

    def __init__(self, mesh: arke.Mesh, cluster: str, *observers: MembershipObserver) -> None:
        self._mesh = mesh
        self._cluster = cluster
        self._observers = observers
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start watching; return when the members are known, or after a timeout."""
        self._task = asyncio.create_task(self._watch())
        try:
            async with asyncio.timeout(_FIRST_LIST_TIMEOUT):
                listed = await self._mesh.members(self._cluster)
        except TimeoutError:
            return
        for member in listed:
            self._joined(member)

    def _joined(self, member: arke.Member) -> None:
        for observer in self._observers:
            observer.member_joined(member, self._mesh.node)

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _watch(self) -> None:
        try:
            async for joined, member in self._mesh.watch(self._cluster):
                if joined:
                    self._joined(member)
                    continue
                for observer in self._observers:
                    observer.member_left(member)
        except arke.MeshClosed:
            pass
