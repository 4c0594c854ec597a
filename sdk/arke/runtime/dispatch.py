"""The registration of a service, and the dispatch of messages to its handlers."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Mapping

from arke.limits import Limits
from arke.mesh import Mesh
from arke.runtime.broadcast_dispatch import BroadcastDispatcher
from arke.runtime.handler_errors import HandlerErrors
from arke.runtime.http_server_address import HttpServerAddress
from arke.runtime.relay_connection import Message, MessageHandler, RelayConnection
from arke.runtime.request_dispatch import RequestDispatcher
from arke.runtime.service_handlers import ServiceHandlers
from arke.runtime.thread_handlers import ThreadHandlers
from arke.runtime.tunnel_dispatch import TunnelDispatcher
from arke.wire.messages import Op

log = logging.getLogger("arke")


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
        self._attachment = mesh.runtime.attachment
        self._registered = False
        self._threads = ThreadHandlers(cluster)
        errors = HandlerErrors(cluster, handlers.on_error)
        on_request = self._threads.awaitable(handlers.on_request, limits.requests)
        self.requests = RequestDispatcher(
            mesh,
            limits,
            errors,
            handler=on_request,
            # A thread cannot be cancelled.
            can_cancel=on_request is handlers.on_request,
            cancels_at_deadline=handlers.cancel_at_deadline,
        )
        on_broadcast = self._threads.awaitable(handlers.on_broadcast, limits.broadcasts)
        self.broadcasts = BroadcastDispatcher(limits, errors, on_broadcast)
        self.tunnels = TunnelDispatcher(
            mesh,
            limits,
            errors,
            cluster=cluster,
            on_tunnel=handlers.on_tunnel,
            on_request_many=handlers.on_request_many,
            on_request=on_request,
            http=http,
        )
        self._on_drop = handlers.on_drop
        self._drop_tasks: set[asyncio.Future[None]] = set()

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
        await self.requests.wait_idle()
        await self.broadcasts.wait_idle()
        await self.tunnels.wait_idle()

    async def stop(self) -> None:
        """Cancel the running handlers. A thread cannot be cancelled: it ends with its handler."""
        await self.requests.stop()
        await self.broadcasts.stop()
        await self.tunnels.stop()
        self._threads.shutdown()

    def describe_work(self) -> str:
        """Describe what runs and what waits, for a line of the log."""
        requests, broadcasts = self.requests, self.broadcasts
        return (
            f"running requests {requests.running}, broadcasts {broadcasts.running}, "
            f"tunnels {self.tunnels.open}; waiting requests {requests.queued}, "
            f"broadcasts {broadcasts.queued}"
        )

    # The component interface.

    @property
    def handlers(self) -> Mapping[int, MessageHandler]:
        return {
            Op.DELIVER_REQUEST: self.requests.on_deliver,
            Op.DELIVER_BROADCAST: self.broadcasts.on_deliver,
            Op.OFFER: self._on_offer,
            Op.REQUEST_CANCELLED: self.requests.on_cancelled,
        }

    def on_attached(self, connection: RelayConnection) -> None:
        self.requests.on_attached()
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

    def _on_offer(self, message: Message, connection: RelayConnection) -> None:
        body = message[2]
        if type(body) is not bytes:
            body = connection.body(message, 2)
        remaining = self.requests.remaining_ms(message[3], message[4], connection.now)
        if remaining > 0:
            self.tunnels.on_offer(message, body, remaining / 1000, connection)
