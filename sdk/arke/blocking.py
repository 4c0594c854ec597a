"""The mesh for programs without asyncio: the same calls, which wait; safe from any thread.

with arke.blocking.connect() as mesh:
    reply = mesh.request("cluster", b"ip", timeout=5.0)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import AbstractAsyncContextManager, contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import arke
from arke.runtime.event_loop import loop_factory
from arke.wire.limits import WINDOW

_T = TypeVar("_T")

_MAX_MESSAGE = 64 * 1024 * 1024


class _Runner:
    """A loop in a thread of its own, to which every other thread hands its work."""

    def __init__(self) -> None:
        self._loop = (loop_factory() or asyncio.new_event_loop)()
        self._thread = threading.Thread(target=self._loop.run_forever, name="arke", daemon=True)
        self._thread.start()
        self._lock = threading.Lock()
        self._closed = False

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do the work and wait for it. Whoever is interrupted meanwhile has it cancelled.

        Raises MeshClosed after the end.
        """
        with self._lock:
            closed = self._closed
            if not closed:
                future = asyncio.run_coroutine_threadsafe(work, self._loop)
        if closed:
            work.close()
            raise arke.MeshClosed("the mesh was closed")
        try:
            return future.result()
        except CancelledError:
            raise arke.MeshClosed("the mesh was closed") from None
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        with self._lock:
            self._closed = True
        # Behind all that was handed over: nobody is left waiting for a loop that has stopped.
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._loop.shutdown_asyncgens()

    def iterate(self, iterator: AsyncIterator[_T]) -> Iterator[_T]:
        try:
            while True:
                try:
                    item = self.run(_next(iterator))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            with contextlib.suppress(arke.MeshClosed):  # then it has ended with the loop
                self.run(_close(iterator))

    @contextmanager
    def inside(self, block: AbstractAsyncContextManager[_T]) -> Iterator[_T]:
        entered = self.run(_enter(block))
        try:
            yield entered
        except BaseException as error:
            if not self.run(block.__aexit__(type(error), error, error.__traceback__)):
                raise
        else:
            self.run(block.__aexit__(None, None, None))


class Mesh:
    """An attachment to the network; use it with `with`. The calls are those of `arke.Mesh`."""

    def __init__(
        self,
        port: int | None = None,
        path: str | os.PathLike[str] | None = None,
        wait: float = 5.0,
    ) -> None:
        self._mesh = arke.Mesh(port, path, wait)
        self._runner: _Runner | None = None

    def __enter__(self) -> Self:
        runner = _Runner()
        try:
            runner.run(self._mesh.__aenter__())
        except BaseException:
            runner.close()
            raise
        self._runner = runner
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Detach. What was told before still leaves; open requests raise MeshClosed."""
        runner, self._runner = self._runner, None
        if runner is not None:
            try:
                runner.run(self._mesh.close())
            finally:
                runner.close()

    @property
    def node(self) -> arke.Node:
        """The node this program runs on; its address is always the latest."""
        return self._mesh.node

    @property
    def attached(self) -> bool:
        """Whether the relay is there at this moment; while it is not, calls wait for it."""
        return self._mesh.attached

    def request(
        self,
        cluster: str,
        body: bytes,
        *,
        timeout: float = 5.0,
        headers: Mapping[str, str] | None = None,
        idempotent: bool = False,
        member: str | None = None,
    ) -> bytes:
        """One member of the cluster answers."""
        return self._running.run(
            self._mesh.request(
                cluster,
                body,
                timeout=timeout,
                headers=headers,
                idempotent=idempotent,
                member=member,
            )
        )

    def request_many(
        self,
        cluster: str,
        body: bytes,
        *,
        timeout: float = 5.0,
        headers: Mapping[str, str] | None = None,
        member: str | None = None,
    ) -> Iterator[bytes]:
        """One member answers in parts."""
        parts = self._mesh.request_many(
            cluster, body, timeout=timeout, headers=headers, member=member
        )
        return self._running.iterate(parts)

    def request_all(
        self,
        cluster: str,
        body: bytes,
        *,
        timeout: float = 5.0,
        headers: Mapping[str, str] | None = None,
    ) -> list[arke.Answer]:
        """Every member of the cluster is asked."""
        return self._running.run(
            self._mesh.request_all(cluster, body, timeout=timeout, headers=headers)
        )

    def broadcast(
        self, cluster: str, body: bytes, *, headers: Mapping[str, str] | None = None
    ) -> None:
        """Every current member of the cluster gets the body at most once, in the order sent."""
        self._running.run(self._mesh.broadcast(cluster, body, headers=headers))

    def publish(self, topic: str, body: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        """Every current subscriber of the topic gets the body at most once, in the order sent."""
        self._running.run(self._mesh.publish(topic, body, headers=headers))

    @contextmanager
    def subscribe(self, topic: str) -> Iterator[Iterator[arke.Event]]:
        """The events of a topic: `with mesh.subscribe(topic) as events`, then `for event in …`."""
        runner = self._running
        with runner.inside(self._mesh.subscribe(topic)) as events:
            yield runner.iterate(events)

    @contextmanager
    def tunnel(
        self,
        cluster: str,
        *,
        timeout: float = 5.0,
        headers: Mapping[str, str] | None = None,
        member: str | None = None,
        window: int = WINDOW,
        max_message: int = _MAX_MESSAGE,
    ) -> Iterator[Tunnel]:
        """A stream of messages with one member of the cluster."""
        runner = self._running
        block = self._mesh.tunnel(
            cluster,
            timeout=timeout,
            headers=headers,
            member=member,
            window=window,
            max_message=max_message,
        )
        with runner.inside(block) as tunnel:
            yield Tunnel(tunnel, runner)

    @contextmanager
    def http_tunnel(self, member: str, *, timeout: float = 5.0) -> Iterator[Tunnel]:
        """A connection to the HTTP server of a member, which the member itself makes."""
        runner = self._running
        with runner.inside(runner.run(self._mesh.http_tunnel(member, timeout=timeout))) as tunnel:
            yield Tunnel(tunnel, runner)

    def members(self, cluster: str) -> list[arke.Member]:
        """Who serves the cluster, as far as the relay knows."""
        return self._running.run(self._mesh.members(cluster))

    def watch(self, cluster: str) -> Iterator[arke.Change]:
        """The members there are, as joined; then who joins and who leaves, as it happens."""
        return self._running.iterate(self._mesh.watch(cluster))

    def status(self) -> dict[str, Any]:
        """What the relay knows: its node, peers, clusters, topics."""
        return self._running.run(self._mesh.status())

    @property
    def _running(self) -> _Runner:
        if self._runner is None:
            raise arke.MeshClosed("the mesh is not open: use `with`")
        return self._runner


class Tunnel:
    """One end of a tunnel; the calls are those of `arke.Tunnel`."""

    def __init__(self, tunnel: arke.Tunnel, runner: _Runner) -> None:
        self._tunnel = tunnel
        self._runner = runner

    def send(self, message: bytes) -> None:
        """Send one message; waits while the other end has more than it can read."""
        self._runner.run(self._tunnel.send(message))

    def recv(self) -> bytes:
        """The next message. Raises TunnelClosed at the end."""
        return self._runner.run(self._tunnel.recv())

    def close_send(self) -> None:
        """Send nothing more; the other end's iteration ends behind what was sent."""
        self._runner.run(_call(self._tunnel.close_send))

    def __iter__(self) -> Iterator[bytes]:
        return self._runner.iterate(self._tunnel)


def connect(
    *,
    port: int | None = None,
    path: str | os.PathLike[str] | None = None,
    wait: float = 5.0,
) -> Mesh:
    """Attach to the relay of this machine, for as long as the block: see `arke.connect`."""
    return Mesh(port, path, wait)


async def _next(iterator: AsyncIterator[_T]) -> _T:
    return await anext(iterator)


async def _enter(block: AbstractAsyncContextManager[_T]) -> _T:
    return await block.__aenter__()


async def _close(iterator: AsyncIterator[Any]) -> None:
    close = getattr(iterator, "aclose", None)  # generators have one; subscriptions need none
    if close is not None:
        await close()


async def _call(function: Any) -> None:
    function()
