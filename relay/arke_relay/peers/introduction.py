"""What two relays tell each other once they have proved who they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from ipaddress import ip_address

from arke_relay.peers.validation import is_integer, is_text, printable

_TEXT_BYTES = 64


@dataclass(frozen=True, slots=True)
class Introduction:
    """Where the sender listens, and what it sees. Raises `ValueError` when out of bounds."""

    join_port: int
    data_port: int
    reached: str
    """The IP address at which the sender reaches or sees the receiver; empty: unknown."""
    version: str
    """The sender's version of Arke, for people."""
    max_message: int
    """The largest body that the sender takes, in octets."""

    def __post_init__(self) -> None:
        for part in fields(self):
            if not _BOUNDS[part.name](getattr(self, part.name)):
                raise ValueError(f"an introduction with a bad {part.name.replace('_', ' ')}")


def _is_port(value: object) -> bool:
    return is_integer(value, 1, 65535)


def _is_size(value: object) -> bool:
    return is_integer(value, 1, 2**62)


def _is_label(value: object) -> bool:
    return is_text(value, 0, _TEXT_BYTES) and value == printable(str(value))


def _is_address(value: object) -> bool:
    if not _is_label(value):
        return False
    try:
        return not value or bool(ip_address(str(value)))
    except ValueError:
        return False


_BOUNDS: dict[str, Callable[[object], bool]] = {
    "join_port": _is_port,
    "data_port": _is_port,
    "reached": _is_address,
    "version": _is_label,
    "max_message": _is_size,
}
