"""Addresses to dial for joins, and when: hints come in, the dials that are due come out.

A target is one join address. A hint may claim that it is a certain node; only a join proves it.
Anyone on the link can send mDNS hints, also copies of real ones with other addresses. So they have
limited room, in all and for each node that they claim, and seeds and addresses that peers know are
dialled first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

FIRST_RETRY = 0.1
LONGEST_RETRY = 5.0
"""Seconds between dials of an address that does not answer."""

LONGEST_UNTRUSTED_RETRY = 20.0
"""The same for an untrusted address. A relay that starts announces itself and is found sooner."""

SELF_RETRY = 300.0
"""Seconds until an address that was this relay's own is dialled again: it may be reassigned."""

FORGET_AFTER = 600.0
"""Seconds without a hint or a success after which an address is removed."""

MAX_TARGETS = 4_096
MAX_UNTRUSTED = 1_024
"""Untrusted targets; they are not counted in MAX_TARGETS."""

MAX_UNTRUSTED_OF_NODE = 16
"""Untrusted targets that claim the same node: as many as one mDNS record has."""

MAX_CONCURRENT = 32
"""Dials in progress at one time."""

MAX_CONCURRENT_UNTRUSTED = 16

_CLAIM_INTERVAL = 10.0
"""Seconds during which a second untrusted claim for one address does not cause another dial."""


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
    trusted: bool
    """The address is a seed's, was named by a peer, or a join with it has succeeded."""
    claimed: float
    """When a node was claimed here last."""
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
        self._untrusted: dict[tuple[str, int], DialTarget] = {}
        """Those of `_all` that are untrusted."""
        self.refused = 0
        """Hints dropped because a limit of the table was reached."""
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
        *,
        trusted: bool = True,
    ) -> None:
        """Add addresses. A new one, or one that now claims another node, is due at once.

        `trusted`: False for a hint that anyone on the link can send.
        """
        for address in addresses:
            key = address, port
            known = self._all.get(key)
            if known is None:
                if self._make_room(node, trusted=trusted):
                    target = DialTarget(
                        address, port, node, key_index or 0, now, now, trusted, claimed=now
                    )
                    self._all[key] = target
                    if not trusted:
                        self._untrusted[key] = target
                else:
                    self.refused += 1
                continue
            known.hinted = now
            if trusted:
                self._trust(key, known)
            if node is not None and node != known.node:
                self._claim(known, node, now, trusted=trusted)
            if key_index is not None:
                known.key_index = key_index

    def _claim(self, target: DialTarget, node: str, now: float, *, trusted: bool) -> None:
        """Dial a target again, because it may be another node now."""
        if not trusted and now - target.claimed < _CLAIM_INTERVAL and target.tried:
            return
        target.node = node
        target.claimed = now
        if trusted or target.trusted:
            target.pause = FIRST_RETRY
        target.due = now
        target.tried = False

    def _make_room(self, node: str | None, *, trusted: bool) -> bool:
        """Return whether one more target may be added. An untrusted one may replace another."""
        if trusted:
            return len(self._all) - len(self._untrusted) < MAX_TARGETS
        same_node = [key for key, target in self._untrusted.items() if target.node == node]
        if len(same_node) >= MAX_UNTRUSTED_OF_NODE:
            # The one that failed most often: a copied record must not keep out the real address.
            failed = [key for key in same_node if not self._untrusted[key].dialling]
            if not failed:
                return False
            worst = max(failed, key=lambda key: self._untrusted[key].pause)
            del self._all[worst], self._untrusted[worst]
        return len(self._untrusted) < MAX_UNTRUSTED

    def _trust(self, key: tuple[str, int], target: DialTarget) -> None:
        if not target.trusted:
            target.trusted = True
            self._untrusted.pop(key, None)

    def due(self, linked: Callable[[str], bool], now: float) -> list[DialTarget]:
        """Return the targets to dial now. Each is given back with `succeeded` or `failed`."""
        dialling = 0
        untrusted_dialling = 0
        ready: list[DialTarget] = []
        self.exploring = False
        for key, target in list(self._all.items()):
            dialling += target.dialling
            untrusted_dialling += target.dialling and not target.trusted
            if target.node is not None and linked(target.node):
                continue
            self.exploring |= not target.tried
            if target.dialling:
                continue
            if now - target.hinted > FORGET_AFTER:
                del self._all[key]
                self._untrusted.pop(key, None)
            elif target.due <= now:
                ready.append(target)
        # Longest due first: many dead addresses must not starve a live one.
        ready.sort(key=lambda target: (not target.trusted, target.due))
        started: list[DialTarget] = []
        for target in ready:
            if dialling >= MAX_CONCURRENT:
                break
            if not target.trusted:
                if untrusted_dialling >= MAX_CONCURRENT_UNTRUSTED:
                    break
                untrusted_dialling += 1
            dialling += 1
            target.dialling = True
            started.append(target)
        return started

    def succeeded(self, target: DialTarget, node: str, now: float) -> None:
        """The join with `node` succeeded. If its link is lost, it is dialled again at once."""
        self._trust((target.address, target.port), target)
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
        longest = LONGEST_RETRY if target.trusted else LONGEST_UNTRUSTED_RETRY
        target.pause = min(longest, 2 * target.pause)

    def lost(self, node: str, now: float) -> None:
        """The link to a node was lost: dial its addresses soon."""
        for target in self._all.values():
            if target.node == node:
                target.hinted = now
                target.pause = FIRST_RETRY
                target.due = now + FIRST_RETRY
