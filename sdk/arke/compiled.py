"""Tell whether the hot modules of this installation are compiled by mypyc or run as Python."""

from __future__ import annotations

from arke.wire import outbox


def is_compiled() -> bool:
    """Whether the hot modules are compiled. `hatch_build.py` does so if there is a C compiler."""
    return not outbox.__file__.endswith(".py")
