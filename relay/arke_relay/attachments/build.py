"""Build the parts that handle local programs."""

from __future__ import annotations

from collections.abc import Callable

from arke_relay.attachments.context import AttachmentContext
from arke_relay.attachments.fair_reader import FairReader
from arke_relay.attachments.keepalive import ProgramKeepalive
from arke_relay.attachments.pending_handshakes import PendingHandshakes
from arke_relay.attachments.program_registry import ProgramRegistry
from arke_relay.core.message_core import MessageCore
from arke_relay.environment import RelayEnvironment
from arke_relay.flusher import Flusher


class CachedDocument:
    """Makes a document once for all requests of the same moment."""

    def __init__(self, make: Callable[[], bytes]) -> None:
        self._make = make
        self._document = b""
        self._made_at = 0.0

    def at(self, now: float) -> bytes:
        if now != self._made_at:
            self._made_at = now
            self._document = self._make()
        return self._document


def build_attachments(
    environment: RelayEnvironment,
    core: MessageCore,
    flusher: Flusher,
    *,
    network: str,
    max_message: int,
    status_document: Callable[[], bytes],
) -> AttachmentContext:
    """Return the context of all local connections, which holds the parts."""
    keepalive = ProgramKeepalive()
    clock, log = environment.clock, environment.log
    return AttachmentContext(
        network,
        max_message,
        clock,
        CachedDocument(status_document).at,
        core,
        flusher,
        FairReader(environment.loop, clock),
        ProgramRegistry(core, keepalive, clock, log),
        PendingHandshakes(core.counters, log),
        keepalive,
    )
