"""Whether what handles each message runs as machine code, or as the sources that it is made of."""

from __future__ import annotations

from arke.wire import outbox


def is_compiled() -> bool:
    """Say so of this installation: `hatch_build.py` compiles where there is a C compiler."""
    return not outbox.__file__.endswith(".py")
