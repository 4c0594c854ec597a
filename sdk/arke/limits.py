"""Limits: how much work a service accepts at once."""

from __future__ import annotations

from dataclasses import dataclass

from arke.wire.limits import MIN_WINDOW, WINDOW

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one service.

    `requests`, `broadcasts` and `tunnels` bound the handlers that run at once; `tunnels` includes
    multipart replies. `broadcasts` is 1 by default, which keeps the order of each sender.
    `request_bytes` and `broadcast_bytes` bound the bodies that wait for a handler. `http` bounds
    the connections to the service's HTTP server through tunnels. `window` is the credit of each
    tunnel in bytes, and `max_message` its largest message.

    Requests beyond `requests` wait. Requests beyond `request_bytes`, and tunnels beyond `tunnels`
    or `http`, are refused, and the mesh tries another member. Broadcasts beyond `broadcast_bytes`
    are dropped and counted in `service.dropped`. Raises ValueError for a bound under 1, or a window
    under 64 KiB.
    """

    requests: int = 256
    request_bytes: int = 64 * _MIB
    broadcasts: int = 1
    broadcast_bytes: int = 64 * _MIB
    tunnels: int = 256
    http: int = 512
    window: int = WINDOW
    max_message: int = 64 * _MIB

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 1:
                raise ValueError(f"limit {name} must be at least 1 (got {getattr(self, name)})")
        if self.window < MIN_WINDOW:
            raise ValueError(f"limit window must be at least {MIN_WINDOW} (got {self.window})")
