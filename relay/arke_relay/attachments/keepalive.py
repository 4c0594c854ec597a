"""Detect programs that are dead, or that do not read."""

from __future__ import annotations

from arke.wire.liveness import Liveness
from arke_relay.attachments.attached_connection import AttachedConnection
from arke_relay.attachments.detach_reason import DetachReason

TICK = 1.0
"""Seconds between two ticks."""

_SILENCE_TIMEOUT = 30.0
"""Seconds without traffic after which a program is considered dead. Programs compute, and are
stopped in debuggers."""

_PING_AFTER = 10.0
"""Seconds without traffic after which a program is sent PING."""

STALL_TIMEOUT = 2.0
"""Seconds after which a program that has read nothing is not waited for while closing."""


class StallTimer:
    """Measures for how long each program has read nothing of its queue."""

    def __init__(self) -> None:
        self._last: dict[AttachedConnection, tuple[int, float]] = {}
        """Bytes queued at the last call, and since when that number has not changed."""

    def stalled_for(self, connection: AttachedConnection, now: float) -> float:
        queued = connection.queued
        last, since = self._last.get(connection, (queued, now))
        if queued != last:
            since = now
        self._last[connection] = queued, since
        return now - since

    def remove(self, connection: AttachedConnection) -> None:
        self._last.pop(connection, None)

    def __len__(self) -> int:
        return len(self._last)


class ProgramKeepalive:
    """Pings silent programs, and closes the connections of dead and of stalled ones."""

    def __init__(self) -> None:
        self._liveness: dict[AttachedConnection, Liveness] = {}
        self._closing: dict[AttachedConnection, None] = {}
        """Connections that close once their queue is written."""
        self._stalls = StallTimer()

    def add(self, connection: AttachedConnection, now: float) -> None:
        """Watch an attached program."""
        self._liveness[connection] = Liveness(_SILENCE_TIMEOUT, TICK, now)

    def detached(self, connection: AttachedConnection) -> None:
        self._liveness.pop(connection, None)

    def closing(self, connection: AttachedConnection, now: float) -> None:
        """Abort the connection if the program does not read the rest of its queue."""
        self._closing[connection] = None
        self._stalls.stalled_for(connection, now)

    def closed(self, connection: AttachedConnection) -> None:
        self._closing.pop(connection, None)
        self._stalls.remove(connection)

    def tick(self, now: float) -> None:
        """Call this every TICK seconds."""
        for connection, liveness in list(self._liveness.items()):
            if connection.received:
                connection.received = False
                liveness.on_traffic(now)
            if liveness.timed_out(now):
                connection.abort(DetachReason.TIMED_OUT)
            elif liveness.silence(now) >= _PING_AFTER:
                connection.ping()
        for connection in list(self._closing):
            if self._stalls.stalled_for(connection, now) >= STALL_TIMEOUT:
                connection.abort(DetachReason.STALLED)
