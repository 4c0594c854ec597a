"""Handle SIGTERM and SIGINT: the first one starts a drain, the second ends the process at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stop_signals(on_first: Callable[[], object]) -> Iterator[None]:
    """Call `on_first` at the first signal during the block, from the main thread.

    It may be called at any point of the program. The event loop's own signal handlers would wait
    until the loop runs, so a handler that blocks the loop would make the process unkillable.
    Must be used in the main thread.
    """

    def handle_first(_: int, __: object) -> None:
        for number in _SIGNALS:
            signal.signal(number, _exit_at_once)
        on_first()

    previous = {number: signal.signal(number, handle_first) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _exit_at_once(number: int, _: object) -> None:
    name = signal.Signals(number).name
    os.write(2, f"arke: ends at once, because of a second signal ({name})\n".encode())
    os._exit(128 + number)
