"""What the registry and the keepalive need of a program's connection."""

from __future__ import annotations

from typing import Protocol

from arke_relay.attachments.detach_reason import DetachReason


class AttachedConnection(Protocol):
    """Implemented by ProgramConnection."""

    identity: bytes
    received: bool

    @property
    def receiving(self) -> bool:
        """A part of a large body has arrived, and the rest has not."""

    @property
    def queued(self) -> int:
        """Bytes that wait to be sent."""

    @property
    def topics(self) -> int:
        """The number of topics the program subscribes to."""

    def ping(self) -> None:
        """Ask the program for a sign of life."""

    def end(self, reason: DetachReason, detail: str = "") -> None:
        """Send the reason and close."""

    def abort(self, reason: DetachReason) -> None:
        """Close at once."""
