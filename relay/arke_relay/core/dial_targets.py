"""Addresses to dial for joins, and when: hints come in, the dials that are due come out.

A target is one join address. A hint may claim that it is a certain node; only a join proves it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

FIRST_RETRY = 0.1
LONGEST_RETRY = 5.0
"""Seconds between dials of an address that does not answer."""

SELF_RETRY = 300.0
"""Seconds until an address that was this relay's own is dialled again: it may be reassigned."""

FORGET_AFTER = 600.0
"""Seconds without a hint or a success after which an address is removed."""

MAX_TARGETS = 4_096
MAX_CONCURRENT = 32
"""Dials in progress at one time."""


@dataclass(slots=True)
class DialTarget:
    """One address; `node` is the node id that was claimed or found there."""

    address: str
    port: int
    node: str | None
    key_index: int
    """The index of the network key to try first."""
    due: float
    hinted: float
    pause: float = FIRST_RETRY
    dialling: bool = False
    tried: bool = False
    """Dialled since the first hint, or since another node was claimed here."""

    @property
    def where(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"


class DialTargets:
    """`random` returns floats in [0, 1): it spreads the dials of many relays."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._all: dict[tuple[str, int], DialTarget] = {}
        self.refused = 0
        """Hints dropped because the table was full."""
        self.exploring = False
        """At the last call of `due`, an address of an unlinked node had not been tried yet."""

    def __len__(self) -> int:
        return len(self._all)

    def hint(
        self,
        addresses: Iterable[str],
        port: int,
        node: str | None,
        key_index: int | None,
        now: float,
    ) -> None:
        """Add addresses. A new one, or one that now claims another node, is due at once."""
        for address in addresses:
            known = self._all.get((address, port))
            if known is None:
                if len(self._all) >= MAX_TARGETS:
                    self.refused += 1
                    continue
                self._all[address, port] = DialTarget(address, port, node, key_index or 0, now, now)
                continue
            known.hinted = now
            if node is not None and node != known.node:
                known.node = node
                known.pause = FIRST_RETRY
                known.due = now
                known.tried = False
            if key_index is not None:
                known.key_index = key_index

    def due(self, linked: Callable[[str], bool], now: float) -> list[DialTarget]:
        """Return the targets to dial now. Each is given back with `succeeded` or `failed`."""
        dialling = 0
        ready: list[DialTarget] = []
        self.exploring = False
        for key, target in list(self._all.items()):
            dialling += target.dialling
            if target.node is not None and linked(target.node):
                continue
            self.exploring |= not target.tried
            if target.dialling:
                continue
            if now - target.hinted > FORGET_AFTER:
                del self._all[key]
            elif target.due <= now:
                ready.append(target)
        # Longest due first: many dead addresses must not starve a live one.
        ready.sort(key=lambda target: target.due)
        started = ready[: max(0, MAX_CONCURRENT - dialling)]
        for target in started:
            target.dialling = True
        return started

    def succeeded(self, target: DialTarget, node: str, now: float) -> None:
        """The join with `node` succeeded. If its link is lost, it is dialled again at once."""
        target.dialling = False
        target.tried = True
        target.node = node
        target.hinted = now
        target.pause = FIRST_RETRY
        target.due = now + target.pause

    def failed(self, target: DialTarget, now: float, *, myself: bool = False) -> None:
        """The join failed; the next dial waits twice as long. `myself`: it reached this relay."""
        target.dialling = False
        target.tried = True
        target.key_index += 1
        pause = SELF_RETRY if myself else target.pause
        target.due = now + pause * (0.75 + 0.5 * self._random())
        target.pause = min(LONGEST_RETRY, 2 * target.pause)

    def lost(self, node: str, now: float) -> None:
        """The link to a node was lost: dial its addresses soon."""
        for target in self._all.values():
            if target.node == node:
                target.hinted = now
                target.pause = FIRST_RETRY
                target.due = now + FIRST_RETRY
