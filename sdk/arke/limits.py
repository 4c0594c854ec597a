"""How much work a service takes on at once."""

from __future__ import annotations

from dataclasses import dataclass

from arke.wire.limits import MIN_WINDOW, WINDOW

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one service; what exceeds them is refused, and the mesh tries another member.

    `requests`, `broadcasts` and `tunnels` are handlers running at once, the last also for requests
    that are answered in parts; `http` is how many connections to its HTTP server others may have
    through tunnels; `request_bytes` and `broadcast_bytes` are the bodies waiting for a handler.
    Broadcasts are handled one after another unless told otherwise, which keeps each sender's order.
    `window` is what each tunnel may bring before it is read,
    `max_message` the largest message of one. Raises ValueError for a bound under one, or a window
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
                raise ValueError(f"limit {name} must be at least 1")
        if self.window < MIN_WINDOW:
            raise ValueError(f"limit window must be at least {MIN_WINDOW}")
