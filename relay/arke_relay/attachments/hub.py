"""What all local connections share: the exchange, the flusher, and who is attached."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from arke.wire.liveness import Liveness
from arke.wire.messages import Op
from arke_relay.core.exchange import Exchange
from arke_relay.core.parties import Program
from arke_relay.flusher import Flusher
from arke_relay.log import Log

if TYPE_CHECKING:
    from arke_relay.attachments.greeting import Greeting
    from arke_relay.attachments.native import NativeConnection

_STRANGERS = 512
"""Connections that have not said hello yet, at most: with one more, the oldest is closed. A program
says hello within milliseconds, so that only who means to be silent is ever the oldest."""

_PATIENCE = 30.0
"""Seconds of silence after which a program is given up: programs compute, and get debugged."""

_BEAT = 1.0
_PING_AFTER = 10.0


class Hub:
    """`clock` is monotonic, in seconds; `status` makes the JSON document of `arke status`."""

    def __init__(
        self,
        exchange: Exchange,
        flusher: Flusher,
        network: str,
        max_message: int,
        clock: Callable[[], float],
        status: Callable[[], bytes],
        log: Log,
    ) -> None:
        self.exchange = exchange
        self.flusher = flusher
        self.network = network
        self.max_message = max_message
        self.clock = clock
        self.status = status
        self.address = ""
        self._log = log
        self._strangers: dict[Greeting, None] = {}
        self._connections: dict[NativeConnection, Liveness] = {}

    # Strangers.

    def admit(self, greeting: Greeting) -> None:
        if len(self._strangers) >= _STRANGERS:
            oldest = next(iter(self._strangers))
            self.dismiss(oldest)
            self.refused("too many connections have not said hello")
            oldest.abort()
        self._strangers[greeting] = None

    def dismiss(self, greeting: Greeting) -> None:
        self._strangers.pop(greeting, None)

    def refused(self, reason: str) -> None:
        self.exchange.counters.drops["stranger_refused"] += 1
        self._log.limited("stranger", 10.0).info("connection refused", reason=reason)

    # Programs.

    def attached(self, name: str, connection: NativeConnection) -> Program:
        program = self.exchange.attach(name, connection)
        self._connections[connection] = Liveness(_PATIENCE, _BEAT, self.clock())
        self._log.info("program attached", program=program)
        return program

    def registered(self, program: Program, cluster: str, now: float) -> None:
        self.exchange.register(program, cluster, now)
        self._log.info("program registered", program=program, cluster=cluster)

    def left(self, program: Program) -> None:
        cluster = program.cluster
        self.exchange.leave(program)
        if cluster is not None:
            self._log.info("program left", program=program, cluster=cluster)

    def detached(self, program: Program, connection: NativeConnection, reason: str) -> None:
        self._connections.pop(connection, None)
        self.exchange.detach(program, self.clock())
        self._log.info("program gone", program=program, reason=reason or "it left")

    # All of them.

    def move(self, address: str) -> None:
        """The node is reached at another address: programs may want to know."""
        self.address = address
        for program in self.exchange.programs.values():
            program.outlet.put((Op.NODE.value, address))

    def tick(self, now: float) -> None:
        """Called once a second: ping the quiet, drop the dead."""
        for connection, liveness in list(self._connections.items()):
            if connection.heard:
                connection.heard = False
                liveness.heard(now)
            if liveness.tick(now):
                connection.abort(f"silent for {_PATIENCE:g} s")
            elif liveness.silence(now) >= _PING_AFTER:
                connection.put((Op.PING.value, 0))

    def say_goodbye(self) -> None:
        for program in self.exchange.programs.values():
            text = "the relay is leaving"
            program.outlet.put((Op.GOODBYE.value, program.last_call, text))

    def close(self, reason: str) -> None:
        for connection in list(self._connections):
            connection.end(reason)
        for greeting in list(self._strangers):
            greeting.abort()

    @property
    def receiving(self) -> bool:
        """Somebody is in the middle of a large body."""
        return any(connection.receiving for connection in self._connections)

    @property
    def queued(self) -> int:
        """Octets that wait for programs to read them."""
        return sum(connection.queued for connection in self._connections)
