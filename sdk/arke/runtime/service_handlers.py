"""The handlers of a service, and their types."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

from arke.request import Request
from arke.tunnel import Tunnel
from arke.values import Broadcast

TunnelHandler = Callable[[Tunnel], Awaitable[None]]
MultipartHandler = Callable[[Request], AsyncGenerator[bytes, None]]
RequestHandler = Callable[[Request], Awaitable[bytes]] | Callable[[Request], bytes]
BroadcastHandler = Callable[[Broadcast], Awaitable[None]] | Callable[[Broadcast], None]
DropHandler = Callable[[str], Awaitable[None]] | Callable[[str], None]
ErrorHandler = Callable[[BaseException, Request | Broadcast | Tunnel], None]


@dataclass
class ServiceHandlers:
    """The registered handlers, each named after the method that registers it."""

    on_request: RequestHandler | None = None
    on_request_many: MultipartHandler | None = None
    on_broadcast: BroadcastHandler | None = None
    on_tunnel: TunnelHandler | None = None
    on_drop: DropHandler | None = None
    on_error: ErrorHandler | None = None
    cancel_at_deadline: bool = True
