"""The state of one end of a tunnel, and the table of its transitions."""

from __future__ import annotations

from enum import Enum, auto


class TunnelState(Enum):
    """Which directions of a tunnel are open, seen from this end."""

    OPEN = auto()
    """Both ends send and receive."""
    SEND_CLOSED = auto()
    """This end sends no more; it still receives."""
    RECEIVE_CLOSED = auto()
    """The other end sends no more; it still receives."""
    DRAINED = auto()
    """Neither end sends any more; messages that have arrived can still be read."""
    PEER_CLOSED = auto()
    """The other end neither sends nor receives; messages that have arrived can still be read."""
    CLOSED = auto()
    """Closed by this end, aborted, or the connection was lost. The tunnel's error says which."""


class TunnelEvent(Enum):
    """What changes the state."""

    CLOSE_SEND = auto()
    """This end half-closes."""
    PEER_CLOSE_SEND = auto()
    """The other end half-closes."""
    PEER_CLOSE = auto()
    """The other end closes both directions."""
    CLOSE = auto()
    """This end closes or aborts, the other end aborts, or the connection is lost."""


_S, _E = TunnelState, TunnelEvent

TRANSITIONS: dict[TunnelState, dict[TunnelEvent, TunnelState]] = {
    _S.OPEN: {
        _E.CLOSE_SEND: _S.SEND_CLOSED,
        _E.PEER_CLOSE_SEND: _S.RECEIVE_CLOSED,
        _E.PEER_CLOSE: _S.PEER_CLOSED,
        _E.CLOSE: _S.CLOSED,
    },
    _S.SEND_CLOSED: {
        _E.PEER_CLOSE_SEND: _S.DRAINED,
        _E.PEER_CLOSE: _S.PEER_CLOSED,
        _E.CLOSE: _S.CLOSED,
    },
    _S.RECEIVE_CLOSED: {
        _E.CLOSE_SEND: _S.DRAINED,
        _E.PEER_CLOSE: _S.PEER_CLOSED,
        _E.CLOSE: _S.CLOSED,
    },
    _S.DRAINED: {_E.CLOSE: _S.CLOSED},
    _S.PEER_CLOSED: {_E.CLOSE: _S.CLOSED},
    _S.CLOSED: {},
}
"""The next state for each event. An event that is not listed has no effect in that state."""

SENDABLE = frozenset({TunnelState.OPEN, TunnelState.RECEIVE_CLOSED})
"""States in which this end may send."""

RECEIVING = frozenset({TunnelState.OPEN, TunnelState.SEND_CLOSED})
"""States in which more messages may arrive."""

FINISHED = frozenset({TunnelState.DRAINED, TunnelState.PEER_CLOSED, TunnelState.CLOSED})
"""States in which no further message of the tunnel is sent or received."""
