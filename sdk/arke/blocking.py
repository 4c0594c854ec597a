"""The mesh for programs without asyncio: the same calls, blocking, from any thread.

with arke.blocking.connect() as mesh:
    reply = mesh.request("cluster", b"ip", timeout=5.0)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import AbstractAsyncContextManager, contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

from arke import mesh as async_mesh
from arke import tunnel as async_tunnel
from arke.errors import MeshClosed
from arke.runtime.event_loop import loop_factory
from arke.runtime.fork import FORKED, observe
from arke.values import Answer, Change, Event, Member, Node
from arke.wire.limits import WINDOW

_T = TypeVar("_T")

_MAX_TUNNEL_MESSAGE = 64 * 1024 * 1024


class _LoopThread:
    """An event loop in its own thread, which runs the calls of all other threads."""

    def __init__(self) -> None:
        self._loop = (loop_factory() or asyncio.new_event_loop)()
        self._thread = threading.Thread(target=self._loop.run_forever, name="arke", daemon=True)
        self._thread.start()
        self._lock = threading.Lock()
        self._closed = False
        self._process = os.getpid()

    @property
    def forked(self) -> bool:
        """Whether this process is a fork, in which the thread does not run."""
        return self._process != os.getpid()

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine and wait for its result; an interrupt (Ctrl-C) cancels it.

        Raises MeshClosed after `close`, and in a fork of the process.
        """
        if self.forked:
            work.close()
            raise MeshClosed(FORKED)
        with self._lock:
            closed = self._closed
            if not closed:
                future = asyncio.run_coroutine_threadsafe(work, self._loop)
        if closed:
            work.close()
            raise MeshClosed("the mesh was closed")
        try:
            return future.result()
        except CancelledError:
            raise MeshClosed("the mesh was closed") from None
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Cancel what still runs, then stop the loop and its thread. Does nothing in a fork."""
        if self.forked:
            return
        with self._lock:
            self._closed = True
        # It runs after every call that was accepted: no thread waits for a stopped loop.
        asyncio.run_coroutine_threadsafe(self._cancel_all(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._loop.shutdown_asyncgens()

    def iterate(self, iterator: AsyncIterator[_T]) -> Generator[_T, None, None]:
        """Iterate over an asynchronous iterator, and close it at the end."""
        try:
            while True:
                try:
                    item = self.run(_next(iterator))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            with contextlib.suppress(MeshClosed):  # the loop has closed it already
                self.run(_close(iterator))

    @contextmanager
    def entered(self, block: AbstractAsyncContextManager[_T]) -> Iterator[_T]:
        """Enter an asynchronous context manager for a `with` block."""
        value = self.run(_enter(block))
        try:
            yield value
        except BaseException as error:
            if not self.run(block.__aexit__(type(error), error, error.__traceback__)):
                raise
        else:
            self.run(block.__aexit__(None, None, None))


class Mesh:
    """A program's attachment to the network; use it with `with`. See `arke.Mesh` for the calls.

    A fork of the process, for example a worker of a web server that loads the application first,
    attaches by itself at its first call.
    """

    def __init__(
        self,
        port: int | None = None,
        path: str | os.PathLike[str] | None = None,
        wait: float = 5.0,
    ) -> None:
        self._where = port, path, wait
        self._mesh = async_mesh.Mesh(port, path, wait)
        self._loop_thread: _LoopThread | None = None
        self._attaching_again = threading.Lock()
        observe(self)

    def __repr__(self) -> str:
        return repr(self._mesh).replace("arke.Mesh", "arke.blocking.Mesh", 1)

    def __enter__(self) -> Self:
        if self._loop_thread is not None:
            raise RuntimeError("the mesh is already open: use it, or make another with connect()")
        loop_thread = _LoopThread()
        try:
            loop_thread.run(self._mesh.__aenter__())
        except BaseException:
            loop_thread.close()
            raise
        self._loop_thread = loop_thread
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Detach. Messages sent before are delivered; pending requests raise MeshClosed."""
        loop_thread, self._loop_thread = self._loop_thread, None
        if loop_thread is not None and not loop_thread.forked:
            try:
                loop_thread.run(self._mesh.close())
            finally:
                loop_thread.close()

    @property
    def node(self) -> Node:
        """The node this program runs on; its address is always the latest."""
        return self._mesh.node

    @property
    def attached(self) -> bool:
        """Whether the program is attached now; while it is not, requests wait for the relay."""
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
        """Send a request to one member of the cluster and return its reply."""
        return self._open_loop.run(
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
    ) -> Generator[bytes, None, None]:
        """Send a request to one member and yield its multipart reply, part by part."""
        loop_thread = self._open_loop
        parts = self._mesh.request_many(
            cluster, body, timeout=timeout, headers=headers, member=member
        )
        return loop_thread.iterate(parts)

    def request_all(
        self,
        cluster: str,
        body: bytes,
        *,
        timeout: float = 5.0,
        headers: Mapping[str, str] | None = None,
    ) -> list[Answer]:
        """Send a request to every member of the cluster and return an Answer for each."""
        return self._open_loop.run(
            self._mesh.request_all(cluster, body, timeout=timeout, headers=headers)
        )

    def broadcast(
        self,
        cluster: str,
        body: bytes,
        *,
        timeout: float = 30.0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send a message to every member of the cluster: at most once each, in the order sent."""
        self._open_loop.run(self._mesh.broadcast(cluster, body, timeout=timeout, headers=headers))

    def publish(
        self,
        topic: str,
        body: bytes,
        *,
        timeout: float = 30.0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send a message to every subscriber of the topic: at most once each, in the order sent."""
        self._open_loop.run(self._mesh.publish(topic, body, timeout=timeout, headers=headers))

    @contextmanager
    def subscribe(self, topic: str, *, timeout: float = 5.0) -> Iterator[Iterator[Event]]:
        """Subscribe to a topic during a block: `with mesh.subscribe("news") as events`."""
        loop_thread = self._open_loop
        with loop_thread.entered(self._mesh.subscribe(topic, timeout=timeout)) as events:
            yield loop_thread.iterate(events)

    @contextmanager
    def tunnel(
        self,
        cluster: str,
        *,
        timeout: float = 5.0,
        headers: Mapping[str, str] | None = None,
        member: str | None = None,
        window: int = WINDOW,
        max_message: int = _MAX_TUNNEL_MESSAGE,
    ) -> Iterator[Tunnel]:
        """Open a stream of messages with one member of the cluster during a block."""
        loop_thread = self._open_loop
        block = self._mesh.tunnel(
            cluster,
            timeout=timeout,
            headers=headers,
            member=member,
            window=window,
            max_message=max_message,
        )
        with loop_thread.entered(block) as tunnel:
            yield Tunnel(tunnel, loop_thread)

    @contextmanager
    def http_tunnel(self, member: str, *, timeout: float = 5.0) -> Iterator[Tunnel]:
        """Open a connection to the HTTP server of a member; the member connects to it."""
        loop_thread = self._open_loop
        opened = loop_thread.run(self._mesh.http_tunnel(member, timeout=timeout))
        with loop_thread.entered(opened) as tunnel:
            yield Tunnel(tunnel, loop_thread)

    def members(self, cluster: str, *, timeout: float = 5.0) -> list[Member]:
        """Return the members of the cluster that the relay knows."""
        return self._open_loop.run(self._mesh.members(cluster, timeout=timeout))

    def watch(self, cluster: str) -> Generator[Change, None, None]:
        """Yield the current members of the cluster as joined, then each change as it happens."""
        return self._open_loop.iterate(self._mesh.watch(cluster))

    def status(self, *, timeout: float = 5.0) -> dict[str, Any]:
        """Return what the relay knows: its node, peers, clusters and topics."""
        return self._open_loop.run(self._mesh.status(timeout=timeout))

    @property
    def _open_loop(self) -> _LoopThread:
        if self._loop_thread is None:
            raise MeshClosed("the mesh is not open: use `with`")
        if self._loop_thread.forked:
            self._attach_again()
        return self._loop_thread

    def on_forked(self) -> None:
        """Make a new lock: a thread of the parent may hold it. Called in a child process."""
        self._attaching_again = threading.Lock()

    def _attach_again(self) -> None:
        """Attach this process, which is a fork of the one that attached."""
        with self._attaching_again:
            if self._loop_thread is None or not self._loop_thread.forked:
                return  # another thread has done it
            # What belongs to the parent is kept: its destructors must not run here.
            self._parent = self._mesh, self._loop_thread
            mesh, loop_thread = async_mesh.Mesh(*self._where), _LoopThread()
            try:
                loop_thread.run(mesh.__aenter__())
            except BaseException:
                loop_thread.close()
                raise
            self._mesh, self._loop_thread = mesh, loop_thread


class Tunnel:
    """One end of a tunnel. See `arke.Tunnel` for the calls."""

    def __init__(self, tunnel: async_tunnel.Tunnel, loop_thread: _LoopThread) -> None:
        self._tunnel = tunnel
        self._loop_thread = loop_thread

    def __repr__(self) -> str:
        return repr(self._tunnel).replace("arke.Tunnel", "arke.blocking.Tunnel", 1)

    def send(self, message: bytes) -> None:
        """Send one message; waits while the other end has not granted enough credit."""
        self._loop_thread.run(self._tunnel.send(message))

    def recv(self) -> bytes:
        """Return the next message. Raises TunnelClosed after the last one, or for a failure."""
        return self._loop_thread.run(self._tunnel.recv())

    def close_send(self) -> None:
        """Half-close: send nothing more. The other end's iteration ends after what was sent."""
        self._loop_thread.run(_call(self._tunnel.close_send))

    def __iter__(self) -> Iterator[bytes]:
        return self._loop_thread.iterate(self._tunnel)


def connect(
    *,
    port: int | None = None,
    path: str | os.PathLike[str] | None = None,
    wait: float = 5.0,
) -> Mesh:
    """Attach to the relay of this machine during a `with` block. See `arke.connect`."""
    return Mesh(port, path, wait)


async def _next(iterator: AsyncIterator[_T]) -> _T:
    return await anext(iterator)


async def _enter(block: AbstractAsyncContextManager[_T]) -> _T:
    return await block.__aenter__()


async def _close(iterator: AsyncIterator[Any]) -> None:
    close = getattr(iterator, "aclose", None)  # generators have it, subscriptions do not need it
    if close is not None:
        await close()


async def _call(function: Callable[[], None]) -> None:
    function()
