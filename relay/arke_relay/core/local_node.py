"""The identity of this relay's node."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class LocalNode:
    """`id` is fixed for the life of the relay; `address` changes with the host's."""

    id: str
    address: str = ""
    """Where peers reach this node."""
