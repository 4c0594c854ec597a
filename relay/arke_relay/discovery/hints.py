"""What discovery has to say."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hint:
    """Somebody may be listening on the join socket at one of these addresses. Nothing is proven."""

    addresses: tuple[str, ...]
    """IPv4 and IPv6 literals without zones, at least one, the likelier ones first."""
    port: int
    """The port of the join socket."""
    node: str | None
    """The node id it claims; None when only the address is known."""
    key_index: int | None
    """Which of our RSA keys its tag was made with; None when there is no tag."""
    source: str
    """`mdns` or `seed`, for logs and metrics."""
