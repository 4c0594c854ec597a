"""State machine of an HTTP/2 stream, as far as the proxy's response is concerned.

`h2` follows the states of RFC 9113; these say what the proxy still has to do for the request.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class ResponseState(IntEnum):
    """How far the response of one stream is."""

    RUNNING = 0  # the exchange runs; or the request is about to be rejected
    FLUSHING = 1  # the response is complete in the proxy; the client has not been sent all of it
    DISCARDING = 2  # all of it is sent; the rest of the request is read and discarded
    CLOSED = 3  # closed or reset


# An enum's members are slow to look up; these are not.
RUNNING: Final = ResponseState.RUNNING
FLUSHING: Final = ResponseState.FLUSHING
DISCARDING: Final = ResponseState.DISCARDING
CLOSED: Final = ResponseState.CLOSED

TRANSITIONS: Final[dict[ResponseState, frozenset[ResponseState]]] = {
    RUNNING: frozenset((FLUSHING, DISCARDING, CLOSED)),
    FLUSHING: frozenset((DISCARDING, CLOSED)),
    DISCARDING: frozenset((CLOSED,)),
    CLOSED: frozenset((CLOSED,)),
}
