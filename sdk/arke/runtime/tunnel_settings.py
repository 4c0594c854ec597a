"""The settings of a tunnel: sizes agreed when it is opened, and who opened it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from arke.values import NO_HEADERS


@dataclass(frozen=True, slots=True)
class TunnelSettings:
    """What one end of a tunnel is created with. Sizes are bytes.

    `window` is the most credit that each end grants, `max_receive` the largest message that this
    end accepts, and `max_send` the largest that the other end accepts. `sender` is the program that
    opened the tunnel, as `node/number`; it is empty at the opening end.
    """

    window: int
    max_receive: int
    max_send: int
    sender: str = ""
    headers: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS)
