"""Sizes and times of the simulated world.

Limits that only gigabytes of data would reach are lower here, so that runs reach them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from arke.wire import outbox
from arke.wire.limits import CHUNK
from arke_relay.core import router
from arke_relay.core.dial_targets import LONGEST_RETRY
from arke_relay.core.membership import CONFIRM_TIMEOUT, HEARTBEAT, SILENCE_TIMEOUT

KIB = 1024

LINK_OUTBOX = 384 * KIB
PROGRAM_OUTBOX = 192 * KIB
HELD_BYTES = 512 * KIB
CONTROL_RESERVE = 8 * KIB
"""Bytes over its limit that an outbox accepts for messages without a body."""

MAX_BODY = 3 * CHUNK
"""Bytes of the largest body that programs send in the simulation."""

SMALL_MAX_MESSAGE = 100_000
"""`-max-message` of some relays, in bytes."""

WINDOWS = (64 * KIB, 256 * KIB)
SOCKET_BUFFER = 64 * KIB
"""Bytes in flight to a program that has not read them."""

MAX_BATCH = 48 * KIB
MAX_FRAMES_IN_FLIGHT = 4
"""Frames of a link that the receiver has not read. They stand for libzmq's and kernel buffers."""

EXPIRY_INTERVAL = 0.05
"""Seconds between two searches of a relay for expired requests."""

SETTLE_TIME = 2.0
DRAIN_TIME = 3.0
CLOSE_TIME = 1.0
JOIN_LIMIT = 5.0

DEADLINE_TOLERANCE = EXPIRY_INTERVAL + 0.01
"""Seconds after its deadline in which a request must end: one search and one transit."""

START_TOLERANCE = HEARTBEAT + 0.15
"""Seconds after its deadline in which a handler may start. A peer estimates the transit time from
the fastest message that it received. After a pause, or on a new link, that one was late by at most
one heartbeat and one transit."""

CONVERGENCE_TIME = JOIN_LIMIT + 1.25 * LONGEST_RETRY + SILENCE_TIMEOUT + CONFIRM_TIMEOUT
"""Seconds after the last fault in which all relays are linked and their directories are equal. In
that time a running join fails, the longest retry pause passes, and a link that only one side has is
closed."""


@contextmanager
def lowered_limits() -> Iterator[None]:
    """Lower the limits of the core to those of this module."""
    held, router.HELD_LIMIT = router.HELD_LIMIT, HELD_BYTES
    reserve, outbox._CONTROL_RESERVE = outbox._CONTROL_RESERVE, CONTROL_RESERVE
    try:
        yield
    finally:
        router.HELD_LIMIT = held
        outbox._CONTROL_RESERVE = reserve
