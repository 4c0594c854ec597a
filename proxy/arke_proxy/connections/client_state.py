"""State machine of a client connection: HTTP/1, HTTP/2, TLS handshake and WebSocket share it.

Each state has a time limit. `Timeouts.sweep` calls `timed_out` on connections whose limit passed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import IntEnum
from typing import Final, Protocol


class ClientState(IntEnum):
    """What a client connection is doing. (An `IntEnum` is hashed in C, other enums are not.)"""

    HANDSHAKE = 0  # TLS handshake
    IDLE = 1  # no request is running, and no byte of the next one has arrived
    REQUEST_HEAD = 2  # part of a request head has arrived
    EXCHANGE = 3  # HTTP/1: a request is running
    STREAMS = 4  # HTTP/2: requests are running; each stream has its own time limit
    FLUSHING = 5  # HTTP/1: the response is complete in the proxy; the client is slow to read it
    UPGRADED = 6  # bytes are relayed in both directions (WebSocket)
    LINGERING = 7  # everything is written; the client has a moment to read it and to close
    LINGERING_SLOW = 8  # that moment has passed, and part of the response is still unsent
    CLOSED = 9  # closed, reset, or handed over to another protocol object


# An enum's members are slow to look up; these are not.
HANDSHAKE: Final = ClientState.HANDSHAKE
IDLE: Final = ClientState.IDLE
REQUEST_HEAD: Final = ClientState.REQUEST_HEAD
EXCHANGE: Final = ClientState.EXCHANGE
STREAMS: Final = ClientState.STREAMS
FLUSHING: Final = ClientState.FLUSHING
UPGRADED: Final = ClientState.UPGRADED
LINGERING: Final = ClientState.LINGERING
LINGERING_SLOW: Final = ClientState.LINGERING_SLOW
CLOSED: Final = ClientState.CLOSED

TRANSITIONS: Final[dict[ClientState, frozenset[ClientState]]] = {
    HANDSHAKE: frozenset((CLOSED,)),
    IDLE: frozenset((REQUEST_HEAD, EXCHANGE, STREAMS, LINGERING, CLOSED)),
    # Back to IDLE: what looked like a head was an empty line, or was no request (HTTP/2 trailers).
    REQUEST_HEAD: frozenset((IDLE, EXCHANGE, STREAMS, LINGERING, CLOSED)),
    # EXCHANGE to itself: the next pipelined request.
    EXCHANGE: frozenset((IDLE, REQUEST_HEAD, EXCHANGE, FLUSHING, LINGERING, CLOSED)),
    STREAMS: frozenset((IDLE, REQUEST_HEAD, LINGERING, CLOSED)),
    FLUSHING: frozenset((IDLE, REQUEST_HEAD, EXCHANGE, LINGERING, CLOSED)),
    UPGRADED: frozenset((LINGERING, CLOSED)),
    LINGERING: frozenset((LINGERING_SLOW, CLOSED)),
    LINGERING_SLOW: frozenset((CLOSED,)),
    CLOSED: frozenset((CLOSED,)),  # a reset connection is closed again by the event loop
}

_CLOSING: Final = frozenset((LINGERING, LINGERING_SLOW, CLOSED))


class ClientTimer:
    """The state of one client connection, and the time at which it times out in that state."""

    __slots__ = ("_clock", "_limits", "closing", "due", "state")

    def __init__(
        self,
        state: ClientState,
        limits: dict[ClientState, float],
        clock: Callable[[], float],
    ) -> None:
        """Start in `state`. `limits` gives the seconds that a connection may stay in a state."""
        self._limits = limits
        self._clock = clock
        self.state = state
        self.closing = False  # nothing more is written, and what still arrives is not read
        self.due = clock() + limits[state]

    def enter(self, state: ClientState) -> None:
        """Change to `state`, with its full time limit."""
        self.enter_at(state, self._clock())

    def enter_at(self, state: ClientState, now: float) -> None:
        """Change to `state` for a caller that has read the clock already."""
        assert state in TRANSITIONS[self.state], f"{self.state.name} to {state.name}"
        self.state = state
        self.closing = state in _CLOSING
        self.due = now + self._limits[state]

    def restart(self) -> None:
        """Give the current state its full time limit again: there was progress."""
        self.due = self._clock() + self._limits[self.state]

    def pause(self) -> None:
        """Set no time limit until the state changes."""
        self.due = math.inf


class ClientConnection(Protocol):
    """A client connection in the registry."""

    peer: str
    """The client's IP address."""

    timer: ClientTimer

    def timed_out(self) -> None:
        """Handle the end of the time limit of the current state."""

    def shut_down(self) -> None:
        """Close the connection after its running requests; at once if there are none."""

    def abort(self) -> None:
        """Reset the connection now."""

    def __hash__(self) -> int: ...
