"""Dispatch requests and broadcasts to the handlers of a service, within its limits."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Mapping
from typing import Final

from arke.limits import Limits
from arke.mesh import Mesh
from arke.request import Request
from arke.runtime.handler_pool import HandlerPool
from arke.runtime.http_server_address import HttpServerAddress
from arke.runtime.relay_connection import Message, MessageHandler, RelayConnection
from arke.runtime.service_handlers import ServiceHandlers
from arke.runtime.thread_handlers import ThreadHandlers
from arke.runtime.tunnel_dispatch import TunnelDispatcher
from arke.values import NO_HEADERS, Broadcast
from arke.wire.messages import Op
from arke.wire.transit_time import TransitTime

log = logging.getLogger("arke")

_OpenRequest = tuple[Request, RelayConnection]

_REPLY: Final = Op.REPLY.value
_FAULT: Final = Op.FAULT.value
_REFUSED: Final = Op.REFUSED.value
_new = tuple.__new__  # half the cost of a named tuple's own constructor
_MAX_FAULT_TEXT: Final = 4096
_MESSAGE_OVERHEAD: Final = 256  # bytes that a waiting message costs beside its body


class Dispatcher:
    """The registration of one service, and its running handlers: a component of the attachment."""

    def __init__(
        self,
        cluster: str,
        metadata: Mapping[str, str],
        limits: Limits,
        mesh: Mesh,
        handlers: ServiceHandlers,
        http: HttpServerAddress | None,
    ) -> None:
        self.cluster = cluster
        self._metadata = dict(metadata)
        self.expired = 0
        """Requests that arrived, or reached a handler, after their deadline."""
        self.dropped = 0
        """Broadcasts that were dropped because their queue, or the reassembler, was full."""
        self._max_request_bytes = limits.request_bytes
        self._max_broadcast_bytes = limits.broadcast_bytes
        self._mesh = mesh
        self._attachment = mesh.runtime.attachment
        self._registered = False
        self._threads = ThreadHandlers(cluster)
        on_request, on_broadcast = handlers.on_request, handlers.on_broadcast
        awaitable = self._threads.awaitable
        self._on_request = awaitable(on_request, limits.requests) if on_request else None
        self._on_broadcast = awaitable(on_broadcast, limits.broadcasts) if on_broadcast else None
        self._on_drop = handlers.on_drop
        self.tunnels = TunnelDispatcher(
            mesh,
            limits,
            cluster=cluster,
            on_tunnel=handlers.on_tunnel,
            on_request_many=handlers.on_request_many,
            on_request=self._on_request,
            http=http,
        )
        self._open_requests: dict[int, _OpenRequest] = {}
        """Requests of the current connection, queued or running, that were not cancelled."""
        self._drop_tasks: set[asyncio.Future[None]] = set()
        self._requests = HandlerPool(limits.requests, self._handle_request)
        self._broadcasts = HandlerPool(limits.broadcasts, self._handle_broadcast)
        self._request_bytes = 0
        self._broadcast_bytes = 0
        self._transit_time = TransitTime()
        self._last_stamp = 0
        self._last_arrival = 0.0
        self._last_delay = 0.0

    async def register(self) -> None:
        """Join the cluster at this and every later relay; returns once the relay has handled it."""
        self._registered = True
        self._attachment.add_component(self)
        if self._attachment.connection:
            await self._attachment.connection.synchronize()

    async def unregister(self) -> None:
        """Leave the cluster. Once this returns, the relay delivers no more messages."""
        self._registered = False
        connection = self._attachment.connection
        if connection:
            connection.send((Op.UNREGISTER.value,))
            await connection.synchronize()

    async def wait_idle(self) -> None:
        """Wait until everything delivered was handled."""
        await self._requests.wait_idle()
        await self._broadcasts.wait_idle()
        await self.tunnels.wait_idle()

    async def stop(self) -> None:
        """Cancel the running handlers. A thread cannot be cancelled: it ends with its handler.

        Requests that were not started are refused, so that another member may handle them.
        """
        for request, connection in await self._requests.stop():
            connection.send((_REFUSED, request.request_id, "the service stopped"))
        await self._broadcasts.stop()
        await self.tunnels.stop()
        self._threads.shutdown()

    # The component interface.

    @property
    def handlers(self) -> Mapping[int, MessageHandler]:
        return {
            Op.DELIVER_REQUEST: self._on_deliver_request,
            Op.DELIVER_BROADCAST: self._on_deliver_broadcast,
            Op.OFFER: self._on_offer,
            Op.REQUEST_CANCELLED: self._on_request_cancelled,
        }

    def on_attached(self, connection: RelayConnection) -> None:
        self._transit_time = TransitTime()  # another relay has another clock
        self._open_requests.clear()  # another relay has other request ids, and cancels only those
        if self._registered:
            connection.send((Op.REGISTER.value, self.cluster, self._metadata or None))

    def on_writable(self) -> None:
        """Replies wait for room in the tasks of their handlers."""

    def on_detached(self, reason: str, last_accepted: int | None) -> None:
        if self._on_drop:
            try:
                result = self._on_drop(reason)
                if inspect.isawaitable(result):
                    task = asyncio.ensure_future(result)
                    self._drop_tasks.add(task)
                    task.add_done_callback(self._drop_tasks.discard)
            except Exception:
                log.exception("the drop handler of service %r raised", self.cluster)

    def on_closed(self) -> None:
        """The service stops its handlers itself."""

    # Messages of the relay.

    def _on_deliver_request(self, message: Message, connection: RelayConnection) -> None:
        request_id: int  # a wrong type raises here, not in the handler's task
        sender: str
        _, request_id, body, remaining_ms, stamp, sender, headers = message
        if type(body) is not bytes:
            body = connection.body(message, 2)
        now = connection.now
        if stamp != self._last_stamp or now != self._last_arrival:
            # Messages of one read mostly have the same stamp: the delay is computed once.
            self._last_stamp, self._last_arrival = stamp, now
            self._last_delay = self._transit_time.delay(stamp, now * 1000)
        remaining = remaining_ms - self._last_delay
        if remaining <= 0:
            self.expired += 1
            return
        if body is None or self._on_request is None:
            no_room = body is None
            reason = "no room to reassemble the request" if no_room else "no request handler"
            connection.send((_REFUSED, request_id, reason))
            return
        waiting = self._request_bytes + len(body) + _MESSAGE_OVERHEAD
        if waiting > self._max_request_bytes and self._request_bytes:
            connection.send((_REFUSED, request_id, "full"))
            return
        self._request_bytes = waiting
        deadline = now + remaining / 1000
        request = Request(request_id, body, deadline, sender, headers or NO_HEADERS, self._mesh)
        work = self._open_requests[request_id] = (request, connection)
        self._requests.put(work)

    def _on_deliver_broadcast(self, message: Message, connection: RelayConnection) -> None:
        _, body, sender, headers = message
        bodies = (body,) if type(body) is bytes else connection.fanout_bodies(body)
        if self._on_broadcast is None:
            return
        if not bodies:
            self.dropped += 1
        if headers is None:
            headers = NO_HEADERS
        max_bytes = self._max_broadcast_bytes
        for each in bodies:
            size = len(each) + _MESSAGE_OVERHEAD
            if self._broadcast_bytes and self._broadcast_bytes + size > max_bytes:
                self.dropped += 1
                continue
            self._broadcast_bytes += size
            self._broadcasts.put(_new(Broadcast, (each, sender, headers)))

    def _on_request_cancelled(self, message: Message, connection: RelayConnection) -> None:
        work = self._open_requests.pop(message[1], None)
        if work is not None and not self._requests.cancel(work):
            self._request_bytes -= len(work[0].body) + _MESSAGE_OVERHEAD

    def _on_offer(self, message: Message, connection: RelayConnection) -> None:
        body = message[2]
        if type(body) is not bytes:
            body = connection.body(message, 2)
        delay = self._transit_time.delay(message[4], connection.now * 1000)
        remaining = message[3] - delay
        if remaining <= 0:
            self.expired += 1
            return
        self.tunnels.on_offer(message, body, remaining / 1000, connection)

    # Handlers.

    async def _handle_request(self, work: _OpenRequest) -> None:
        request, connection = work
        self._request_bytes -= len(request.body) + _MESSAGE_OVERHEAD
        on_request = self._on_request
        assert on_request
        try:
            if request.deadline <= time.monotonic():
                self.expired += 1
                return
            reply = await on_request(request)
            _check_reply(reply, connection.max_message)
        except Exception as error:  # noqa: BLE001 — the caller gets it as RemoteError
            fault = (_FAULT, request.request_id, _text(type(error).__name__), _text(error))
            connection.send(fault)
        except asyncio.CancelledError:
            if self._open_requests.get(request.request_id) is work:  # the caller still waits
                fault = (_FAULT, request.request_id, "Cancelled", "the service stopped")
                connection.send(fault)
            raise
        else:
            if connection.congested:
                await connection.wait_for_room()
            send_body = connection.send_body
            if not send_body((_REPLY, request.request_id, reply), 2):
                text = "the service has no room to queue the reply"
                connection.send((_FAULT, request.request_id, "Overloaded", text))
        finally:
            if self._open_requests.get(request.request_id) is work:
                del self._open_requests[request.request_id]

    async def _handle_broadcast(self, broadcast: Broadcast) -> None:
        self._broadcast_bytes -= len(broadcast.body) + _MESSAGE_OVERHEAD
        assert self._on_broadcast
        try:
            await self._on_broadcast(broadcast)
        except Exception:
            log.exception("the broadcast handler of service %r raised", self.cluster)


def _check_reply(reply: object, max_message: int) -> None:
    if type(reply) is not bytes:
        raise TypeError(f"the handler must return bytes (got {type(reply).__name__})")
    if len(reply) > max_message:
        raise ValueError(f"the reply has {len(reply)} bytes; the relay's limit is {max_message}")


def _text(value: object) -> str:
    """Convert an exception to text that can be sent: bounded, without lone surrogates."""
    try:
        return str(value)[:_MAX_FAULT_TEXT].encode(errors="replace").decode()
    except Exception as error:  # noqa: BLE001 — the exception's own __str__ may raise
        return f"unprintable {type(error).__name__}"
