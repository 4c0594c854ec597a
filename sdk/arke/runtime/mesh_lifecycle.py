"""The life of a mesh: enter, close, state, and copies limited to the deadline of a request."""

from __future__ import annotations

import os
from copy import copy
from types import TracebackType
from typing import Self

from arke.errors import MeshClosed
from arke.runtime.mesh_runtime import MeshRuntime
from arke.values import Node


class MeshLifecycle:
    """The base class of `arke.Mesh`."""

    def __init__(
        self,
        port: int | None = None,
        path: str | os.PathLike[str] | None = None,
        wait: float = 5.0,
    ) -> None:
        self._port = port
        self._path = path
        self._wait = wait
        self._entered = False
        self._runtime: MeshRuntime | None = None  # set while, and after, the mesh is open
        self._checked_names: set[str] = set()  # names of clusters and topics known to be valid
        self._scope: tuple[float, str | None] | None = None
        """The deadline and `traceparent` of the request that further requests belong to."""

    def __repr__(self) -> str:
        runtime = self._runtime
        if runtime is None:
            return "<arke.Mesh not open>"
        if runtime.attachment.closing:
            return "<arke.Mesh closed>"
        state = "attached to" if self.attached else "detached from"
        address, node = runtime.attachment.address, self.node
        return f"<arke.Mesh {state} {address}, node {node.id}, network {node.network!r}>"

    async def __aenter__(self) -> Self:
        if self._entered:
            raise RuntimeError("the mesh is already open: use it, or make another with connect()")
        self._entered = True
        try:
            self._runtime = await MeshRuntime.open(self._port, self._path, self._wait)
        except BaseException:
            self._entered = False
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Detach. Messages sent before are delivered; pending requests raise MeshClosed."""
        if self._runtime is not None:
            attachment = self._runtime.attachment
            try:
                if attachment.connection:
                    await attachment.connection.synchronize()
            finally:
                await attachment.close()
                self._entered = False

    @property
    def node(self) -> Node:
        """The node this program runs on; its address is always the latest."""
        return self.runtime.attachment.node

    @property
    def attached(self) -> bool:
        """Whether the program is attached now; while it is not, requests wait for the relay."""
        return self.runtime.attachment.connection is not None

    @property
    def late(self) -> int:
        """Replies that were dropped because their request had timed out or was cancelled."""
        return self._open_runtime().requests.pending.late

    def within(self, deadline: float, traceparent: str | None) -> Self:
        """Return this mesh with a limit: every request ends at `deadline` (time.monotonic())."""
        mesh = copy(self)
        mesh._scope = deadline, traceparent  # noqa: SLF001 — a copy of this object
        return mesh

    @property
    def runtime(self) -> MeshRuntime:
        """The machinery behind the mesh, not for programs. Raises MeshClosed before it is open."""
        if self._runtime is None:
            raise MeshClosed("the mesh is not open: use `async with`")
        return self._runtime

    def _open_runtime(self) -> MeshRuntime:
        """Return the runtime. Raises MeshClosed also after the mesh was closed."""
        self.runtime.attachment.check_open()
        return self.runtime
