"""Admission table: which nodes are admitted, with which CURVE key, and until when.

All times are seconds on a clock that also counts while the machine is suspended (CLOCK_BOOTTIME),
so that admissions end on time on a laptop that slept.
"""

from __future__ import annotations

from dataclasses import dataclass

from arke_relay.errors import JoinRefused, RefusalCode
from arke_relay.peers.join_handshake import AdmittedPeer

CAPACITY = 4096  # a full mesh is meant for some hundreds of nodes


@dataclass(frozen=True, slots=True)
class _Admission:
    curve_key: bytes
    renew_at: float
    ends_at: float


class AdmissionTable:
    """The admitted nodes. An expired entry no longer counts, even before it is removed."""

    def __init__(self) -> None:
        self._entries: dict[str, _Admission] = {}
        self._nodes: dict[bytes, str] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def admit(self, peer: AdmittedPeer, now: float) -> None:
        """Admit a peer after a join, or renew its admission from `now`.

        Raises `JoinRefused` if the node is admitted with another key, if the key is admitted for
        another node, or if the table is full.
        """
        node, curve_key = peer.node, peer.curve_key
        if self.lookup(curve_key, now) not in {None, node}:
            raise JoinRefused(
                RefusalCode.CURVE_KEY_IN_USE, "this CURVE key is admitted for another node"
            )
        entry = self._entries.get(node)
        if entry is not None and entry.curve_key != curve_key and now < entry.ends_at:
            raise JoinRefused(
                RefusalCode.NODE_ID_IN_USE, "this node is admitted with another CURVE key"
            )
        if entry is None and len(self._entries) >= CAPACITY:
            raise JoinRefused(
                RefusalCode.TOO_MANY_PEERS, f"this relay has the most peers it can have: {CAPACITY}"
            )
        self._remove(node)
        self._remove(self._nodes.get(curve_key))
        renew_at, ends_at = now + peer.lifetime / 2, now + peer.lifetime
        self._entries[node] = _Admission(curve_key, renew_at, ends_at)
        self._nodes[curve_key] = node

    def lookup(self, curve_key: bytes, now: float) -> str | None:
        """Return the node that is admitted with `curve_key` at `now`, if any."""
        node = self._nodes.get(curve_key)
        return node if node is not None and now < self._entries[node].ends_at else None

    def key_of(self, node: str) -> bytes | None:
        """Return the CURVE key of a node in the table."""
        entry = self._entries.get(node)
        return None if entry is None else entry.curve_key

    def renew_due(self, now: float) -> list[str]:
        """Return the nodes past half of their admission. Repeated until they are renewed."""
        entries = self._entries.items()
        return [node for node, entry in entries if entry.renew_at <= now < entry.ends_at]

    def expired(self, now: float) -> list[str]:
        """Remove the expired nodes and return them."""
        over = [node for node, entry in self._entries.items() if entry.ends_at <= now]
        for node in over:
            self._remove(node)
        return over

    def revoke(self, node: str) -> None:
        """End a node's admission now; it may join again. An unknown node is ignored."""
        self._remove(node)

    def _remove(self, node: str | None) -> None:
        entry = None if node is None else self._entries.pop(node, None)
        if entry is not None:
            del self._nodes[entry.curve_key]
