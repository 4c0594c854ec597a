"""A hint: an address where a relay may listen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hint:
    """A relay may listen at one of these addresses. A hint is never trusted."""

    addresses: tuple[str, ...]
    """One or more IPv4 and IPv6 literals without zone ids, the most likely first."""
    port: int
    """The port of the join socket."""
    node: str | None
    """The claimed node id. None if only the address is known."""
    key_index: int | None
    """Index of the RSA key that made its tag. None if it has no tag."""
    source: str
    """`mdns` or `seed`, for logs and metrics."""
