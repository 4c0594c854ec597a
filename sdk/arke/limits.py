"""How much work a service takes on at once."""

from __future__ import annotations

from dataclasses import dataclass

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one service; what exceeds them is refused, and the mesh tries another member.

    `requests` and `broadcasts` are handlers running at once; `request_bytes` and `broadcast_bytes`
    are the bodies waiting for one. Broadcasts are handled one after another unless told otherwise,
    which keeps each sender's order. Raises ValueError for a bound under one.
    """

    requests: int = 256
    request_bytes: int = 64 * _MIB
    broadcasts: int = 1
    broadcast_bytes: int = 64 * _MIB

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 1:
                raise ValueError(f"limit {name} must be at least 1")
