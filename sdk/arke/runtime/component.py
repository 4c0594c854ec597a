"""The interface between an attachment and its components: requests, topics, tunnels, a service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from arke.runtime.relay_connection import MessageHandler, RelayConnection


class Component(Protocol):
    """Handles some operations of the relay and follows the state of the attachment."""

    @property
    def handlers(self) -> Mapping[int, MessageHandler]:
        """The operations of the relay that the component handles."""

    def on_attached(self, connection: RelayConnection) -> None:
        """Restore the component's state at the relay, after the first or another connection."""

    def on_writable(self) -> None:
        """Send what waits: a congested connection accepts data again."""

    def on_detached(self, reason: str, last_accepted: int | None) -> None:
        """Handle the loss of the connection.

        `last_accepted` is the last request_id that the relay accepted, if it announced its
        shutdown.
        """

    def on_closed(self) -> None:
        """Fail what waits: the program has closed the mesh."""
