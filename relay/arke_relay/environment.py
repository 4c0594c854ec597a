"""Clock, randomness, event loop and log, passed to the parts that need them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from arke.program.logging import Log


@dataclass(frozen=True, slots=True)
class RelayEnvironment:
    """What the relay takes from the process and the machine. Tests pass their own."""

    loop: asyncio.AbstractEventLoop
    clock: Callable[[], float]
    """Monotonic seconds."""
    lifetime_clock: Callable[[], float]
    """Monotonic seconds that also count while the machine is suspended."""
    random: Callable[[], float]
    """Floats in [0, 1), to spread load and retries."""
    random_bytes: Callable[[int], bytes]
    """Unpredictable bytes, for keys and nonces."""
    log: Log
