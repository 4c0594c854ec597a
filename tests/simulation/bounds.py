"""Sizes and times of the simulated world.

Bounds that only gigabytes would reach are lower here, so that they are reached. What they guard is
the same at any size.
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
HELD = 512 * KIB
RESERVE = 8 * KIB
"""What outboxes keep beside their limit for messages without a body."""

LARGEST = 3 * CHUNK
"""Octets of the largest body that programs send here."""

SMALL_MESSAGES = 100_000
"""The largest body that some relays take."""

WINDOWS = (64 * KIB, 256 * KIB)
PIPE = 64 * KIB
"""Octets on their way to a program that has not read them."""

BATCH = 48 * KIB
IN_FLIGHT = 4
"""Frames of a link that the receiver has not read: libzmq's and the kernel's buffers."""

EXPIRY = 0.05
"""How often a relay looks for requests at their deadline."""

SETTLE = 2.0
GRACE = 3.0
FAREWELL = 1.0
JOIN_LIMIT = 5.0

ON_TIME = EXPIRY + 0.01
"""How late after its deadline a request may end: one look, and the way to the program."""

LATE_START = HEARTBEAT + 0.15
"""How late a handler may start. A peer learns how long messages take from those that came: after it
was paused, or on a new link, the best of them was at most one heartbeat and one way late."""

AGREED = JOIN_LIMIT + 1.25 * LONGEST_RETRY + SILENCE_TIMEOUT + CONFIRM_TIMEOUT
"""Seconds after all is healed in which everybody is linked and agrees: a join that was under way
fails, the longest pause passes, and a link that came of it on one side only is given up."""


@contextmanager
def lowered() -> Iterator[None]:
    """The bounds of the core as they are in here."""
    held, router.HELD_LIMIT = router.HELD_LIMIT, HELD
    reserve, outbox._CONTROL_RESERVE = outbox._CONTROL_RESERVE, RESERVE
    try:
        yield
    finally:
        router.HELD_LIMIT = held
        outbox._CONTROL_RESERVE = reserve
