"""Callers that send requests continuously; no request may fail."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import arke
from support.waiting import LIMIT


def echo_service(cluster: str, port: int) -> arke.Service:
    service = arke.Service(cluster, port=port)

    @service.on_request
    async def answer(request: arke.Request) -> bytes:
        return request.body

    return service


class Traffic:
    """Callers that each send requests to a cluster of echo services until the block ends."""

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

    async def wait_for_replies(self, count: int = 50) -> None:
        """Wait for `count` further replies. Raises the exception of a failed caller."""
        goal = self.replied + count
        async with asyncio.timeout(LIMIT):
            while self.replied < goal:
                self.raise_failures()
                await asyncio.sleep(0.01)

    def raise_failures(self) -> None:
        """Raise the exception of a failed caller."""
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
