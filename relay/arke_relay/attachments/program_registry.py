"""What all local connections share: the core, the flusher, and who is attached."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from arke.program.logging import Log
from arke.wire.liveness import Liveness
from arke.wire.messages import Op
from arke_relay.attachments.fair_reader import FairReader
from arke_relay.core.directory import MAX_ENTRIES, Metadata
from arke_relay.core.endpoints import MessageSink, Program
from arke_relay.core.message_core import MessageCore
from arke_relay.flusher import Flusher

if TYPE_CHECKING:
    from arke_relay.attachments.connection import Connection
    from arke_relay.attachments.protocol_detection import ProtocolDetector

LEFT = "it left"
"""Why most programs are gone."""

_STRANGERS = 512
"""Connections that have not said hello yet, at most: with one more, the oldest is closed. A program
says hello within milliseconds, so that only who means to be silent is ever the oldest."""

_PATIENCE = 30.0
"""Seconds of silence after which a program is given up: programs compute, and get debugged."""

_FAREWELL = 2.0
"""Seconds in which a program must have read on, when its connection ends behind last words."""

_TOPICS = MAX_ENTRIES // 2
"""Topics of all programs together, each program's own: what a peer bears, with room for members."""

_BEAT = 1.0
_PING_AFTER = 10.0
_COMINGS = 100  # lines of one kind in a second: each costs as much as attaching does
_FAILURES = 1000  # the same about programs that did not leave by themselves


class ProgramRegistry:
    """`clock` is monotonic, in seconds; `status` makes the JSON document of `arke status`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        core: MessageCore,
        flusher: Flusher,
        network: str,
        max_message: int,
        clock: Callable[[], float],
        status: Callable[[], bytes],
        log: Log,
    ) -> None:
        self.core = core
        self.flusher = flusher
        self.network = network
        self.max_message = max_message
        self.clock = clock
        self.turns = FairReader(loop, clock)
        self._status = status
        self._document = b""
        self._documented = 0.0
        self._log = log
        self._strangers: dict[ProtocolDetector, None] = {}
        self._connections: dict[Connection, Liveness] = {}
        self._identities: dict[bytes, Connection] = {}
        self._closing: dict[Connection, tuple[int, float]] = {}
        """Whose end is on its way: octets left when last looked, and since when it is so many."""
        self._topics = 0
        self._unread: dict[Connection, tuple[int, float]] = {}

    # Strangers.

    def admit(self, detector: ProtocolDetector) -> None:
        if len(self._strangers) >= _STRANGERS:
            oldest = next(iter(self._strangers))
            self.dismiss(oldest)
            self.refused("too many connections have not said hello")
            oldest.abort()
        self._strangers[detector] = None

    def dismiss(self, detector: ProtocolDetector) -> None:
        self._strangers.pop(detector, None)

    def refused(self, reason: str) -> None:
        self.core.counters.drops["handshake_refused"] += 1
        self._log.limited("stranger", 10.0).info("connection refused", reason=reason)

    # Programs.

    def attached(self, name: str, connection: Connection, sink: MessageSink) -> Program:
        identity = connection.identity
        if identity:
            # What is still unread there was said before what is going to be said here.
            if earlier := self._identities.get(identity):
                earlier.end("the program has attached anew")
            self._identities[identity] = connection
        program = self.core.attach(name, sink)
        self._connections[connection] = Liveness(_PATIENCE, _BEAT, self.clock())
        self._lines("attached").info("program attached", program=program)
        return program

    def registered(self, program: Program, cluster: str, metadata: Metadata, now: float) -> None:
        self.core.register(program, cluster, metadata, now)
        log = self._lines("registered")
        log.info("program registered", program=program, cluster=cluster)

    def left(self, program: Program) -> None:
        cluster = program.cluster
        self.core.leave(program)
        if cluster is not None:
            log = self._lines("left")
            log.info("program left", program=program, cluster=cluster)

    def subscribe(self, program: Program, topic: str) -> None:
        """Where there are too many topics in all, whoever has most of them is cut off."""
        before = len(program.topics)
        self.core.subscribe(program, topic)
        self._topics += len(program.topics) - before
        if self._topics > _TOPICS:
            greediest = max(self._connections, key=lambda each: each.topics)
            greediest.end("the programs of this node have too many topics, and it has most")

    def unsubscribe(self, program: Program, topic: str) -> None:
        before = len(program.topics)
        self.core.unsubscribe(program, topic)
        self._topics += len(program.topics) - before

    def detached(self, program: Program, connection: Connection, reason: str) -> None:
        self._connections.pop(connection, None)
        if self._identities.get(connection.identity) is connection:
            del self._identities[connection.identity]
        self._topics -= len(program.topics)
        self.core.detach(program, self.clock())
        if reason and reason != LEFT:
            log = self._lines("cut off", _FAILURES)
        else:
            log, reason = self._lines("gone"), LEFT
        log.info("program gone", program=program, reason=reason)

    def _lines(self, what: str, most: int = _COMINGS) -> Log:
        """Where to write what every user of this machine can provoke as often as they like."""
        return self._log.limited(what, 1.0, most)

    def closing(self, connection: Connection) -> None:
        """Its last words are on their way."""
        self._closing[connection] = connection.queued, self.clock()

    def closed(self, connection: Connection) -> None:
        self._closing.pop(connection, None)

    def document(self, now: float) -> bytes:
        """What `arke status` shows; made once for all who ask in the same moment."""
        if now != self._documented:
            self._documented = now
            self._document = self._status()
        return self._document

    # All of them.

    def move(self, address: str) -> None:
        """The node is reached at another address: programs may want to know."""
        self.core.address = address
        for program in self.core.programs.values():
            program.sink.put((Op.NODE_ADDRESS.value, address))

    def tick(self, now: float) -> None:
        """Called once a second: ping the quiet, drop the dead."""
        for connection, liveness in list(self._connections.items()):
            if connection.heard:
                connection.heard = False
                liveness.on_traffic(now)
            if liveness.timed_out(now):
                connection.abort(f"silent for {_PATIENCE:g} s")
            elif liveness.silence(now) >= _PING_AFTER:
                connection.ping()
        for connection, (last, since) in list(self._closing.items()):
            queued = connection.queued
            if queued != last:
                self._closing[connection] = queued, now
            elif now - since >= _FAREWELL:
                connection.abort("it does not read")

    def say_goodbye(self) -> None:
        for program in self.core.programs.values():
            text = "the relay is leaving"
            program.sink.put((Op.DRAINING.value, program.last_request_id, text))

    def close(self, reason: str) -> None:
        for connection in list(self._connections):
            connection.end(reason)
        for detector in list(self._strangers):
            detector.abort()

    @property
    def receiving(self) -> bool:
        """Somebody is in the middle of a large body."""
        return any(connection.receiving for connection in self._connections)

    @property
    def queued(self) -> int:
        """Octets that wait for programs to read them."""
        return sum(connection.queued for connection in self._connections)

    def still_read(self, now: float) -> bool:
        """Whether somebody still reads what waits for them; to be asked again and again.

        Who has read nothing for two seconds does not count: nobody is to wait for them.
        """
        reading = False
        for connection in self._connections:
            queued = connection.queued
            last, since = self._unread.get(connection, (0, now))
            if queued != last:
                since = now
            self._unread[connection] = queued, since
            reading |= queued > 0 and now - since < _FAREWELL
        return reading
