"""Takes what the relay hands to a service, within its limits, and runs the handlers."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any, Final

from arke.errors import TunnelClosed
from arke.limits import Limits
from arke.mesh import Mesh
from arke.runtime.handler_pool import Workers
from arke.runtime.http_server_address import HttpServer
from arke.runtime.http_tunnels import HttpTunnels
from arke.runtime.relay_connection import Handler, Message, RelayLink
from arke.tunnel import Tunnel
from arke.values import NO_HEADERS, Broadcast, Request
from arke.wire.limits import HTTP_SEGMENT, HTTP_WINDOW
from arke.wire.messages import Op, Purpose
from arke.wire.transit_time import TransitTime

log = logging.getLogger("arke")

_REPLY: Final = Op.REPLY.value
_FAULT: Final = Op.FAULT.value
_REFUSED: Final = Op.REFUSED.value
_new = tuple.__new__  # half the price of a named tuple's own constructor
_FAULT_TEXT: Final = 4096
_OVERHEAD: Final = 256  # octets a waiting message costs beside its body

TunnelHandler = Callable[[Tunnel], Awaitable[None]]
PartsHandler = Callable[[Request], AsyncGenerator[bytes, None]]
RequestHandler = Callable[[Request], Awaitable[bytes]] | Callable[[Request], bytes]
BroadcastHandler = Callable[[Broadcast], Awaitable[None]] | Callable[[Broadcast], None]
DropHandler = Callable[[str], Awaitable[None]] | Callable[[str], None]


@dataclass
class Handlers:
    """What a service does with what reaches it."""

    answer: RequestHandler | None = None
    answer_in_parts: PartsHandler | None = None
    hear: BroadcastHandler | None = None
    converse: TunnelHandler | None = None
    drop: DropHandler | None = None


class Serving:
    """One registered program. Made when its service starts, stopped once."""

    def __init__(
        self,
        cluster: str,
        metadata: Mapping[str, str],
        limits: Limits,
        mesh: Mesh,
        handlers: Handlers,
        http: HttpServer | None,
    ) -> None:
        self.cluster = cluster
        self._metadata = dict(metadata)
        self.expired = 0
        """Requests that came, or had their turn, after their deadline."""
        self.dropped = 0
        """Broadcasts that found no room, here or to be joined from their chunks."""
        self._request_room = limits.request_bytes
        self._broadcast_room = limits.broadcast_bytes
        self._mesh = mesh
        self._attachment = mesh.attachment
        self._joined = False
        self._threads: list[ThreadPoolExecutor] = []
        answer, hear = handlers.answer, handlers.hear
        self._answer = self._coroutine(answer, limits.requests) if answer else None
        self._hear = self._coroutine(hear, limits.broadcasts) if hear else None
        self._answer_in_parts = handlers.answer_in_parts
        self._converse = handlers.converse
        self._drop = handlers.drop
        self._window = limits.window
        self._max_message = limits.max_message
        self._tunnel_room = limits.tunnels
        self._tunnels: dict[asyncio.Task[None], Tunnel] = {}
        self._http_tunnels = HttpTunnels(http, limits.http, lambda: mesh.node.address)
        self._unwanted: set[int] = set()  # calls whose handlers are being cancelled
        self._drops: set[asyncio.Future[None]] = set()
        self._requests = Workers(limits.requests, self._handle_request)
        self._broadcasts = Workers(limits.broadcasts, self._handle_broadcast)
        self._request_bytes = 0
        self._broadcast_bytes = 0
        self._lateness = TransitTime()
        self._stamp = 0
        self._arrived = 0.0
        self._waited = 0.0

    async def join(self) -> None:
        """Register, here and at every relay to come; returns once the relay knows."""
        self._joined = True
        self._attachment.carry(self)
        if self._attachment.link:
            await self._attachment.link.settled()

    async def leave(self) -> None:
        """Leave the cluster; when this returns the relay hands over nothing more."""
        self._joined = False
        link = self._attachment.link
        if link:
            link.send((Op.UNREGISTER.value,))
            await link.settled()

    async def idle(self) -> None:
        """Wait until everything handed over is done."""
        await self._requests.idle()
        await self._broadcasts.idle()
        if self._tunnels:
            await asyncio.wait(self._tunnels)
        await self._http_tunnels.idle()

    async def stop(self) -> None:
        """Cancel what still runs. A plain function cannot be: its thread ends by itself.

        Requests that never began are refused: another member may have them.
        """
        for request, link in await self._requests.stop():
            link.send((_REFUSED, request.call, "the service stopped"))
        await self._broadcasts.stop()
        for task, tunnel in self._tunnels.items():
            tunnel.abort("the service stopped")
            task.cancel()
        if self._tunnels:
            await asyncio.wait(self._tunnels)
        await self._http_tunnels.stop()
        for threads in self._threads:
            threads.shutdown(wait=False, cancel_futures=True)

    # A part of the attachment.

    @property
    def handlers(self) -> Mapping[int, Handler]:
        return {
            Op.DELIVER_REQUEST: self._on_call,
            Op.DELIVER_BROADCAST: self._on_told,
            Op.OFFER: self._on_offer,
            Op.REQUEST_CANCELLED: self._on_stop,
        }

    def attached(self, link: RelayLink) -> None:
        self._lateness = TransitTime()  # another relay may have another clock
        if self._joined:
            link.send((Op.REGISTER.value, self.cluster, self._metadata or None))

    def relieved(self) -> None:
        """Replies wait for room by themselves."""

    def detached(self, reason: str, last_accepted: int | None) -> None:
        if self._drop:
            try:
                made = self._drop(reason)
                if inspect.isawaitable(made):
                    task = asyncio.ensure_future(made)
                    self._drops.add(task)
                    task.add_done_callback(self._drops.discard)
            except Exception:
                log.exception("the drop handler of %r raised", self.cluster)

    def closed(self) -> None:
        """The service stops by itself."""

    # What the relay hands over.

    def _on_call(self, message: Message, link: RelayLink) -> None:
        call: int  # what else comes is refused here, not in the handler's task
        sender: str
        _, call, body, timeout, stamp, sender, headers = message
        if type(body) is not bytes:
            body = link.body(message, 2)
        now = link.now
        if stamp != self._stamp or now != self._arrived:
            # What one read brought was mostly stamped at one moment: one look serves all of it.
            self._stamp, self._arrived = stamp, now
            self._waited = self._lateness.delay(stamp, now * 1000)
        left = timeout - self._waited
        if left <= 0:
            self.expired += 1
            return
        if body is None or self._answer is None:
            reason = "no room to join the request" if body is None else "no request handler"
            link.send((_REFUSED, call, reason))
            return
        waiting = self._request_bytes + len(body) + _OVERHEAD
        if waiting > self._request_room and self._request_bytes:
            link.send((_REFUSED, call, "full"))
            return
        self._request_bytes = waiting
        deadline = now + left / 1000
        request = Request(call, body, deadline, sender, headers or NO_HEADERS, self._mesh)
        self._requests.put((request, link))

    def _on_told(self, message: Message, link: RelayLink) -> None:
        _, body, sender, headers = message
        bodies = (body,) if type(body) is bytes else link.casts(body)
        if self._hear is None:
            return
        if not bodies:
            self.dropped += 1
        if headers is None:
            headers = NO_HEADERS
        limit = self._broadcast_room
        for each in bodies:
            size = len(each) + _OVERHEAD
            if self._broadcast_bytes and self._broadcast_bytes + size > limit:
                self.dropped += 1
                continue
            self._broadcast_bytes += size
            self._broadcasts.put(_new(Broadcast, (each, sender, headers)))

    def _on_stop(self, message: Message, link: RelayLink) -> None:
        call = message[1]

        def unwanted(work: tuple[Request, RelayLink]) -> bool:
            return work[0].call == call and work[1] is link

        left, running = self._requests.cancel(unwanted)
        for request, _ in left:
            self._request_bytes -= len(request.body) + _OVERHEAD
        if running:
            self._unwanted.add(call)

    def _on_offer(self, message: Message, link: RelayLink) -> None:
        call: int
        sender: str
        _, call, body, timeout, stamp, purpose, window, theirs, sender, headers = message
        if type(body) is not bytes:
            body = link.body(message, 2)
        left = timeout - self._lateness.delay(stamp, link.now * 1000)
        if left <= 0:
            self.expired += 1
            return
        headers = headers or NO_HEADERS
        tunnels = self._mesh.tunnels
        if purpose == Purpose.HTTP:
            sizes = min(window, HTTP_WINDOW), HTTP_SEGMENT, theirs
            accept = partial(tunnels.accept, link, call, *sizes, sender, headers)
            self._http_tunnels.offer(link, call, left / 1000, accept)
            return
        if purpose == Purpose.TUNNEL:
            wanted = self._converse is not None
        else:
            wanted = self._answer_in_parts is not None or self._answer is not None
        if body is None or not wanted or len(self._tunnels) >= self._tunnel_room:
            reason = "full" if body is not None and wanted else "no handler"
            link.send((_REFUSED, call, "no room to join the request" if body is None else reason))
            return
        window = min(window, self._window)
        largest = self._max_message
        tunnel = tunnels.accept(link, call, window, largest, theirs, sender, headers)
        if purpose == Purpose.TUNNEL:
            handling = self._handle_tunnel(tunnel)
        else:
            request = Request(call, body, inf, sender, headers, self._mesh)
            handling = self._handle_parts(request, tunnel)
        task = asyncio.create_task(handling)
        if purpose == Purpose.MULTIPART_REPLY:
            tunnel.when_unheard = task.cancel
        self._tunnels[task] = tunnel
        task.add_done_callback(self._tunnels.pop)

    # Handling.

    async def _handle_tunnel(self, tunnel: Tunnel) -> None:
        assert self._converse
        try:
            async with tunnel:
                await self._converse(tunnel)
        except TunnelClosed as error:
            log.debug("a tunnel of %r ended: %s", self.cluster, error)
        except Exception:
            log.exception("the tunnel handler of %r raised", self.cluster)

    async def _handle_parts(self, request: Request, tunnel: Tunnel) -> None:
        try:
            async with tunnel:
                if self._answer_in_parts is None:
                    assert self._answer
                    await tunnel.send(await self._answer(request))
                    return
                async with aclosing(self._answer_in_parts(request)) as parts:
                    async for part in parts:
                        await tunnel.send(part)
        except TunnelClosed:
            pass  # who asked does not want the rest: the handler has ended
        except Exception as error:  # noqa: BLE001 — it has crossed, as the end of the parts
            log.debug("the handler of %r raised: %s", self.cluster, error)

    async def _handle_request(self, work: tuple[Request, RelayLink]) -> None:
        request, link = work
        self._request_bytes -= len(request.body) + _OVERHEAD
        if request.deadline <= time.monotonic():
            self.expired += 1
            return
        answer = self._answer
        assert answer
        try:
            reply = await answer(request)
            if type(reply) is not bytes:
                raise TypeError(f"a handler returns bytes, not {type(reply).__name__}")
            if len(reply) > link.max_message:
                raise ValueError(f"a reply of {len(reply)} bytes is over the relay's limit")
        except Exception as error:  # noqa: BLE001 — whatever a handler raises is its answer
            link.send((_FAULT, request.call, _text(type(error).__name__), _text(error)))
        except asyncio.CancelledError:
            if request.call not in self._unwanted:
                link.send((_FAULT, request.call, "Cancelled", "the service stopped"))
            self._unwanted.discard(request.call)
            raise
        else:
            if link.congested:
                await link.room()
            send_body = link.send_body
            if not send_body((_REPLY, request.call, reply), 2):
                link.send((_FAULT, request.call, "Overloaded", "no room to send the answer"))

    async def _handle_broadcast(self, broadcast: Broadcast) -> None:
        self._broadcast_bytes -= len(broadcast.body) + _OVERHEAD
        assert self._hear
        try:
            await self._hear(broadcast)
        except Exception:
            log.exception("the broadcast handler of %r raised", self.cluster)

    def _coroutine(
        self, handler: Callable[[Any], Any], limit: int
    ) -> Callable[[Any], Awaitable[Any]]:
        """The handler itself, or a plain function made awaitable in threads of its own.

        The loop's default executor would be a hidden limit of a few threads under the one that was
        set.
        """
        call = getattr(handler, "__call__", None)  # noqa: B004 — of an object with an async one
        if inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(call):
            return handler
        loop = asyncio.get_running_loop()
        threads = ThreadPoolExecutor(limit, thread_name_prefix=f"arke-{self.cluster}")
        self._threads.append(threads)

        async def in_thread(value: Any) -> Any:
            return await loop.run_in_executor(threads, copy_context().run, run, value)

        def run(value: Any) -> Any:
            try:
                return handler(value)
            except StopIteration as error:
                # No future can carry it: the caller would wait for ever.
                raise RuntimeError("the handler raised StopIteration") from error

        return in_thread


def _text(value: object) -> str:
    """What an exception says, bounded, in text that can be sent."""
    try:
        return str(value)[:_FAULT_TEXT].encode(errors="replace").decode()
    except Exception as error:  # noqa: BLE001 — its own __str__ may be what is broken
        return f"unprintable {type(error).__name__}"
