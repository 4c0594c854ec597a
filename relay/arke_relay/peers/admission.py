"""Who is admitted, under which CURVE key, and for how long.

Every time here is seconds on a clock that goes on while the machine is suspended
(CLOCK_BOOTTIME): an admission ends on time also for a relay that slept through it.
"""

from __future__ import annotations

from dataclasses import dataclass

from arke_relay.errors import JoinRefused
from arke_relay.peers.join_handshake import Admitted

CAPACITY = 4096  # a full mesh is right up to some hundreds of nodes


@dataclass(frozen=True, slots=True)
class _Entry:
    curve_key: bytes
    due: float
    ends: float


class Admissions:
    """The table of admitted nodes. An admission counts until its end, collected or not."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._nodes: dict[bytes, str] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def admit(self, admitted: Admitted, now: float) -> None:
        """Enter the outcome of a join, or renew that node's admission from `now`.

        Raises `JoinRefused` when the node is admitted with another key or the key for another
        node (two machines resumed from one image), or when the table is full.
        """
        node, curve_key = admitted.node, admitted.curve_key
        if self.lookup(curve_key, now) not in {None, node}:
            raise JoinRefused("this CURVE key is admitted for another node")
        entry = self._entries.get(node)
        if entry is not None and entry.curve_key != curve_key and now < entry.ends:
            raise JoinRefused("this node is admitted with another CURVE key")
        if entry is None and len(self._entries) >= CAPACITY:
            raise JoinRefused(f"this relay has its {CAPACITY} peers")
        self._remove(node)
        self._remove(self._nodes.get(curve_key))
        half = admitted.lifetime / 2
        self._entries[node] = _Entry(curve_key, due=now + half, ends=now + admitted.lifetime)
        self._nodes[curve_key] = node

    def lookup(self, curve_key: bytes, now: float) -> str | None:
        """Return the node that holds `curve_key`, if it is admitted at this moment."""
        node = self._nodes.get(curve_key)
        return node if node is not None and now < self._entries[node].ends else None

    def key_of(self, node: str) -> bytes | None:
        """Return the CURVE key of a node in the table."""
        entry = self._entries.get(node)
        return None if entry is None else entry.curve_key

    def renew_due(self, now: float) -> list[str]:
        """Return the nodes whose admission is half over, each time until it is renewed."""
        return [node for node, entry in self._entries.items() if entry.due <= now < entry.ends]

    def expired(self, now: float) -> list[str]:
        """Remove and return the nodes whose admission is over."""
        over = [node for node, entry in self._entries.items() if entry.ends <= now]
        for node in over:
            self._remove(node)
        return over

    def revoke(self, node: str) -> None:
        """End a node's admission now; it may join again. Nothing happens to a stranger."""
        self._remove(node)

    def _remove(self, node: str | None) -> None:
        entry = None if node is None else self._entries.pop(node, None)
        if entry is not None:
            del self._nodes[entry.curve_key]
