"""The programs attached to this relay: their connections, identities and number of topics."""

from __future__ import annotations

from collections.abc import Callable

from arke.program.logging import Log
from arke.wire.messages import Op
from arke_relay.attachments.attached_connection import AttachedConnection
from arke_relay.attachments.detach_reason import DETACH_TEXTS, DetachReason
from arke_relay.attachments.keepalive import STALL_TIMEOUT, ProgramKeepalive, StallTimer
from arke_relay.core.directory import MAX_ENTRIES, Metadata
from arke_relay.core.endpoints import MessageSink, Program
from arke_relay.core.message_core import MessageCore

_MAX_TOPICS = MAX_ENTRIES // 2
"""Subscriptions of all programs together: half of the entries that a peer accepts of this node.

The other half is for members.
"""

_MAX_LINES = 100
"""Log lines of one kind in a second: each costs as much as attaching does."""

_MAX_FAILURE_LINES = 1000
"""The same for programs that did not close their connection themselves."""


class ProgramRegistry:
    """Passes registrations and subscriptions on to the core, and logs what programs do."""

    def __init__(
        self,
        core: MessageCore,
        keepalive: ProgramKeepalive,
        clock: Callable[[], float],
        log: Log,
    ) -> None:
        self._programs = core.programs
        self._node = core.node
        self._keepalive = keepalive
        self._clock = clock
        self._log = log
        self.connections: dict[AttachedConnection, None] = {}
        self._identities: dict[bytes, AttachedConnection] = {}
        self._topics = 0
        self._stalls = StallTimer()

    def attached(self, name: str, connection: AttachedConnection, sink: MessageSink) -> Program:
        """Add a program that has completed its handshake."""
        identity = connection.identity
        if identity:
            # The old connection ends first: its unread messages must not be handled after newer
            # ones.
            if earlier := self._identities.get(identity):
                earlier.end(DetachReason.REATTACHED)
            self._identities[identity] = connection
        program = self._programs.attach(name, sink)
        self.connections[connection] = None
        self._keepalive.add(connection, self._clock())
        self._limited("attached").info("program attached", program=program)
        return program

    def register(self, program: Program, cluster: str, metadata: Metadata, now: float) -> None:
        """Raises NotAllowed if the program is registered already."""
        self._programs.register(program, cluster, metadata, now)
        log = self._limited("registered")
        log.info("program registered", program=program, cluster=cluster)

    def unregister(self, program: Program) -> None:
        cluster = program.cluster
        self._programs.unregister(program)
        if cluster is not None:
            log = self._limited("unregistered")
            log.info("program unregistered", program=program, cluster=cluster)

    def subscribe(self, program: Program, topic: str) -> None:
        """Add a topic. If all programs have too many, disconnect the one with most."""
        before = len(program.topics)
        self._programs.subscribe(program, topic)
        self._topics += len(program.topics) - before
        if self._topics > _MAX_TOPICS:
            largest = max(self.connections, key=lambda each: each.topics)
            largest.end(DetachReason.TOO_MANY_TOPICS)

    def unsubscribe(self, program: Program, topic: str) -> None:
        before = len(program.topics)
        self._programs.unsubscribe(program, topic)
        self._topics += len(program.topics) - before

    def detached(
        self, program: Program, connection: AttachedConnection, reason: DetachReason, detail: str
    ) -> None:
        """Remove a program whose connection has closed, or is closing."""
        self.connections.pop(connection, None)
        self._stalls.remove(connection)
        self._keepalive.detached(connection)
        if self._identities.get(connection.identity) is connection:
            del self._identities[connection.identity]
        self._topics -= len(program.topics)
        self._programs.detach(program, self._clock())
        fields = {"detail": detail} if detail else {}
        if reason is DetachReason.CLOSED_BY_PROGRAM:
            log = self._limited("detached")
        else:
            log = self._limited("cut off", _MAX_FAILURE_LINES)
        log.info("program detached", program=program, reason=reason.value, **fields)

    def _limited(self, kind: str, most: int = _MAX_LINES) -> Log:
        """Return the log for lines that every user of this machine can cause at will."""
        return self._log.limited(kind, 1.0, most)

    # All programs.

    def change_address(self, address: str) -> None:
        """Tell every program the new address of this node."""
        self._node.address = address
        for program in self._programs.by_number.values():
            program.sink.put((Op.NODE_ADDRESS.value, address))

    def send_draining(self) -> None:
        """Tell every program that this relay shuts down, and the last of its requests accepted."""
        text = DETACH_TEXTS[DetachReason.RELAY_STOPPING]
        for program in self._programs.by_number.values():
            program.sink.put((Op.DRAINING.value, program.last_request_id, text))

    def close(self) -> None:
        """Disconnect every program."""
        for connection in list(self.connections):
            connection.end(DetachReason.RELAY_STOPPING)

    @property
    def receiving(self) -> bool:
        """A program has sent a part of a large body, and the rest has not arrived."""
        return any(connection.receiving for connection in self.connections)

    @property
    def queued(self) -> int:
        """Bytes that wait to be sent to programs."""
        return sum(connection.queued for connection in self.connections)

    def delivering(self, now: float) -> bool:
        """Return whether data is queued for a program that reads. A draining relay polls this.

        Programs that have read nothing for STALL_TIMEOUT are ignored.
        """
        delivering = False
        for connection in self.connections:
            stalled = self._stalls.stalled_for(connection, now) >= STALL_TIMEOUT
            delivering |= connection.queued > 0 and not stalled
        return delivering
