"""Which event loop a program of ours runs on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where it is installed."""
    try:
        import uvloop  # noqa: PLC0415 — a program on another loop never pays for it
    except ImportError:
        return None
    return uvloop.new_event_loop
