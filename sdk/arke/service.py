"""A service: its handlers, and a life that ends in order."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, TypeVar

from arke.attachment import check_name
from arke.limits import Limits
from arke.member import BroadcastHandler, DropHandler, Member, RequestHandler
from arke.mesh import Mesh

log = logging.getLogger("arke")

_DRAIN = 30.0

InitHandler = Callable[[Mesh], Awaitable[None]] | Callable[[Mesh], None]

_R = TypeVar("_R", bound=RequestHandler)
_B = TypeVar("_B", bound=BroadcastHandler)
_D = TypeVar("_D", bound=DropHandler)
_I = TypeVar("_I", bound=InitHandler)


class Service:
    """Answers requests to a cluster and hears its broadcasts.

    `service.run()` runs until SIGTERM or SIGINT; `async with service:` inside a program until the
    block ends. Both leave the cluster first and finish what was begun, for at most `drain`
    seconds. `wait` is how long to keep trying for a relay at first.
    """

    def __init__(
        self,
        cluster: str,
        *,
        limits: Limits | None = None,
        port: int | None = None,
        path: str | os.PathLike[str] | None = None,
        wait: float = 5.0,
        drain: float = _DRAIN,
    ) -> None:
        check_name(cluster, "cluster")
        self.cluster = cluster
        self.limits = limits or Limits()
        self.mesh = Mesh(port, path, wait)
        self._drain = drain
        self._answer: RequestHandler | None = None
        self._hear: BroadcastHandler | None = None
        self._drop: DropHandler | None = None
        self._init: InitHandler | None = None
        self._member: Member | None = None

    @property
    def expired(self) -> int:
        """Requests that were not begun because their deadline had passed."""
        return self._member.expired if self._member else 0

    @property
    def dropped(self) -> int:
        """Broadcasts that were dropped: too much of them waited already."""
        return self._member.dropped if self._member else 0

    # Handlers. Each may be a coroutine function or a plain one.

    def on_request(self, handler: _R) -> _R:
        """What the handler returns is the reply; what it raises reaches the caller as RemoteError.

        A plain function runs in a thread.
        """
        self._answer = handler
        return handler

    def on_broadcast(self, handler: _B) -> _B:
        """A plain function runs in a thread."""
        self._hear = handler
        return handler

    def on_drop(self, handler: _D) -> _D:
        """Told why whenever the relay is lost. The service attaches again by itself."""
        self._drop = handler
        return handler

    def on_init(self, handler: _I) -> _I:
        """Called with the mesh before registering; by raising it refuses to serve."""
        self._init = handler
        return handler

    # Life.

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain. Uses uvloop where it is installed.

        Raises what `on_init` raised, or RelayUnreachable.
        """
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(self._run())

    async def _run(self) -> None:
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopped.set)
        serving = loop.create_task(self._serve(stopped))
        # Whoever stops a service that still waits for its relay does not want to wait too.
        stopping = loop.create_task(stopped.wait())
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not serving.done() and self._member is None:
            serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serving
        else:
            await serving

    async def _serve(self, stopped: asyncio.Event) -> None:
        async with self:
            await stopped.wait()

    async def __aenter__(self) -> Self:
        await self.mesh.__aenter__()
        try:
            if self._init:
                made = self._init(self.mesh)
                if inspect.isawaitable(made):
                    await made
            self._member = Member(
                self.cluster, self.limits, self.mesh, self._answer, self._hear, self._drop
            )
            await self._member.join()
        except BaseException:
            await self.mesh.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._member
        try:
            async with asyncio.timeout(self._drain):
                await self._member.leave()
                await self._member.idle()
        except TimeoutError:
            log.warning("%r did not finish in %g s: cancelled", self.cluster, self._drain)
        finally:
            try:
                await self._member.stop()
            finally:
                await self.mesh.close()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 — a program on another loop never pays for it
    except ImportError:
        return None
    return uvloop.new_event_loop
