"""Give up the connections of the parent in a process that `os.fork` has made.

A child shares the sockets of its parent. Without this the relay would not notice the death of the
parent while a child lives, and what a child writes would corrupt the parent's messages.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import Protocol

FORKED = "this process is a fork of the one that attached: attach again with arke.connect"


class ForkObserver(Protocol):
    """Is called in the child before `os.fork` returns there."""

    def on_forked(self) -> None: ...


_observers: weakref.WeakSet[ForkObserver] = weakref.WeakSet()
_kept: list[ForkObserver] = []
"""In a child: what belongs to the parent. Its destructors must not run here."""


def observe(observer: ForkObserver) -> None:
    """Notify the observer of each fork, for as long as it lives."""
    _observers.add(observer)


def close_in_child(descriptor: int) -> None:
    """Close a descriptor of the parent; its number stays in use, because objects refer to it."""
    with contextlib.suppress(OSError):
        null = os.open(os.devnull, os.O_RDWR)
        try:
            os.dup2(null, descriptor)
        finally:
            os.close(null)


def _after_fork() -> None:
    for observer in list(_observers):
        _kept.append(observer)
        observer.on_forked()


os.register_at_fork(after_in_child=_after_fork)
