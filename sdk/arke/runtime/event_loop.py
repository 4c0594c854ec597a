"""Choose the event loop of the programs that Arke runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's factory if uvloop is installed, else None for asyncio's own loop."""
    try:
        import uvloop  # noqa: PLC0415 — a program on another loop must not pay for the import
    except ImportError:
        return None
    return uvloop.new_event_loop
