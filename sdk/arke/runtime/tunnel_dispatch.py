"""Dispatch the tunnels that a service is offered: to handlers, or to its HTTP server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing
from functools import partial
from math import inf
from typing import Any

from arke.errors import TunnelClosed
from arke.limits import Limits
from arke.mesh import Mesh
from arke.request import Request
from arke.runtime.handler_errors import HandlerErrors
from arke.runtime.handler_pool import is_task_cancelled
from arke.runtime.http_server_address import HttpServerAddress
from arke.runtime.http_tunnels import HttpTunnels
from arke.runtime.relay_connection import Message, RelayConnection
from arke.runtime.service_handlers import MultipartHandler, TunnelHandler
from arke.runtime.tunnel_settings import TunnelSettings
from arke.tunnel import Tunnel
from arke.values import NO_HEADERS
from arke.wire.limits import HTTP_SEGMENT, HTTP_WINDOW, MAX_ID
from arke.wire.malformed import Malformed
from arke.wire.messages import Op, Purpose

log = logging.getLogger("arke")

_REFUSED = Op.REFUSED.value


class TunnelDispatcher:
    """Runs the tunnel and multipart handlers of one service, each tunnel in a task of its own.

    `on_request` is the fallback for multipart replies: its reply is the only part.
    """

    def __init__(
        self,
        mesh: Mesh,
        limits: Limits,
        errors: HandlerErrors,
        *,
        cluster: str,
        on_tunnel: TunnelHandler | None,
        on_request_many: MultipartHandler | None,
        on_request: Callable[[Any], Awaitable[Any]] | None,
        http: HttpServerAddress | None,
    ) -> None:
        self._mesh = mesh
        self._limits = limits
        self._errors = errors
        self._cluster = cluster
        self._on_tunnel = on_tunnel
        self._on_request_many = on_request_many
        self._on_request = on_request
        self._http_tunnels = HttpTunnels(http, limits.http, lambda: mesh.node.address)
        self.running: dict[asyncio.Task[None], Tunnel] = {}
        """The tunnel of each task that runs a handler."""

    @property
    def open(self) -> int:
        """Number of open tunnels and of connections to the HTTP server."""
        return len(self.running) + self._http_tunnels.open

    async def wait_idle(self) -> None:
        """Wait until every tunnel is closed."""
        if self.running:
            await asyncio.wait(self.running)
        await self._http_tunnels.wait_idle()

    async def stop(self) -> None:
        """Abort every tunnel and cancel its handler."""
        for task, tunnel in self.running.items():
            tunnel.abort("the service stopped")
            task.cancel()
        if self.running:
            await asyncio.wait(self.running)
        await self._http_tunnels.stop()

    def on_offer(
        self, message: Message, body: bytes | None, remaining: float, connection: RelayConnection
    ) -> None:
        """Accept or refuse an OFFER within `remaining` seconds; a dropped body is None."""
        _, request_id, _, _, _, purpose, window, max_send, sender, headers = message
        if not 0 <= request_id <= MAX_ID:
            raise Malformed(f"a request id must be between 0 and {MAX_ID}")
        headers = headers or NO_HEADERS
        if purpose == Purpose.HTTP:
            window = min(window, HTTP_WINDOW)
            settings = TunnelSettings(window, HTTP_SEGMENT, max_send, sender, headers)
            accept = partial(self._accept, connection, request_id, settings)
            self._http_tunnels.on_offer(connection, request_id, remaining, accept)
            return
        refusal = self._refusal(body, purpose)
        if body is None or refusal:
            connection.send((_REFUSED, request_id, refusal))
            return
        window = min(window, self._limits.window)
        settings = TunnelSettings(window, self._limits.max_message, max_send, sender, headers)
        tunnel = self._accept(connection, request_id, settings)
        if purpose == Purpose.TUNNEL:
            self._start(tunnel, self._run_tunnel(tunnel))
        else:
            request = Request(request_id, body, inf, sender, headers, self._mesh)
            task = self._start(tunnel, self._run_multipart(request, tunnel))
            tunnel.on_peer_closed = task.cancel

    def _accept(
        self, connection: RelayConnection, request_id: int, settings: TunnelSettings
    ) -> Tunnel:
        return self._mesh.runtime.tunnels.accept(connection, request_id, settings)

    def _refusal(self, body: bytes | None, purpose: int) -> str:
        """Why an offer is refused; empty if it is accepted."""
        if body is None:
            return "no room to reassemble the request"
        if purpose == Purpose.TUNNEL:
            has_handler = self._on_tunnel is not None
        else:
            has_handler = self._on_request_many is not None or self._on_request is not None
        if not has_handler:
            return "no handler"
        return "full" if len(self.running) >= self._limits.tunnels else ""

    def _start(self, tunnel: Tunnel, handling: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(handling)
        self.running[task] = tunnel
        task.add_done_callback(self.running.pop)
        return task

    async def _run_tunnel(self, tunnel: Tunnel) -> None:
        assert self._on_tunnel
        try:
            async with tunnel:
                await self._on_tunnel(tunnel)
        except TunnelClosed as error:
            log.debug("a tunnel of service %r closed: %s", self._cluster, error)
        except BaseException as error:  # noqa: BLE001 — raised again if it must be
            self._report("tunnel", error, tunnel)

    async def _run_multipart(self, request: Request, tunnel: Tunnel) -> None:
        try:
            async with tunnel:
                if self._on_request_many is None:
                    assert self._on_request
                    await tunnel.send(await self._on_request(request))
                    return
                async with aclosing(self._on_request_many(request)) as parts:
                    async for part in parts:
                        await tunnel.send(part)
        except TunnelClosed:
            pass  # the caller stopped reading, so the handler was closed
        except BaseException as error:  # noqa: BLE001 — raised again if it must be
            self._report("multipart", error, request)

    def _report(self, handler: str, error: BaseException, handled: Request | Tunnel) -> None:
        """Report what a handler raised; raise what must end its task, or the process, again."""
        if isinstance(error, asyncio.CancelledError) and is_task_cancelled():
            raise error
        self._errors.report(handler, error, handled)
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise error
