"""What two relays tell each other at the end of a join: ports, addresses, version, limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from ipaddress import ip_address

from arke.program.printable import printable
from arke_relay.peers.validation import is_integer, is_text

_TEXT_BYTES = 64


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """Where the sender listens and what it accepts. Raises `ValueError` for an invalid field."""

    join_port: int
    data_port: int
    observed_address: str
    """The receiver's IP address as the sender sees it; empty if unknown."""
    version: str
    """The sender's version of Arke, for people."""
    max_message: int
    """The largest body that the sender accepts, in bytes."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if not _CHECKS[field.name](getattr(self, field.name)):
                raise ValueError(f"invalid {field.name.replace('_', ' ')} in the node info")


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


_CHECKS: dict[str, Callable[[object], bool]] = {
    "join_port": _is_port,
    "data_port": _is_port,
    "observed_address": _is_address,
    "version": _is_label,
    "max_message": _is_size,
}
