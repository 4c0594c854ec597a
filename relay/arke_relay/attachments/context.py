"""What every local connection needs of its relay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from arke_relay.attachments.fair_reader import FairReader
from arke_relay.attachments.keepalive import ProgramKeepalive
from arke_relay.attachments.pending_handshakes import PendingHandshakes
from arke_relay.attachments.program_registry import ProgramRegistry
from arke_relay.core.message_core import MessageCore
from arke_relay.flusher import Flusher


@dataclass(frozen=True, slots=True)
class AttachmentContext:
    """Made once for each relay."""

    network: str
    max_message: int
    """The largest body that the relay accepts, in bytes."""
    clock: Callable[[], float]
    """Monotonic seconds."""
    status_document: Callable[[float], bytes]
    """Returns the JSON document of `arke status` at a time of `clock`."""
    core: MessageCore
    flusher: Flusher
    fair_reader: FairReader
    registry: ProgramRegistry
    handshakes: PendingHandshakes
    keepalive: ProgramKeepalive
