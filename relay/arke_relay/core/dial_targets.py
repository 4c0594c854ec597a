"""Addresses worth dialling, and when: hints come in, dials that are due come out.

A prospect is one join address. It may claim to be a certain node; what it really is only a join
can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

FIRST_RETRY = 0.1
LONGEST_RETRY = 5.0
"""Seconds between dials of a silent address: a cable that is put back is found soon."""

MYSELF_RETRY = 300.0
"""An address that turned out to be this relay's own may become another's, but seldom."""

FORGET_AFTER = 600.0
"""Seconds without a hint or a success after which a found address is forgotten."""

MOST = 4_096
AT_ONCE = 32
"""Dials under way at one time."""


@dataclass(slots=True)
class Prospect:
    """One address; `node` is who it claims or was found to be."""

    address: str
    port: int
    node: str | None
    key_index: int
    """Which of our keys to try first."""
    due: float
    hinted: float
    pause: float = FIRST_RETRY
    dialling: bool = False
    tried: bool = False
    """Since it was hinted at, or claimed to be who it is now."""

    @property
    def where(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"


class Prospects:
    """`random` returns floats in [0, 1): it spreads the dials of many relays."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._all: dict[tuple[str, int], Prospect] = {}
        self.refused = 0
        """Hints dropped because the table was full."""
        self.exploring = False
        """When `due` was asked last, some address that matters had not been tried yet."""

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
        """Somebody may be there. A new address, or one that claims another node, is due at once."""
        for address in addresses:
            known = self._all.get((address, port))
            if known is None:
                if len(self._all) >= MOST:
                    self.refused += 1
                    continue
                self._all[address, port] = Prospect(address, port, node, key_index or 0, now, now)
                continue
            known.hinted = now
            if node is not None and node != known.node:
                known.node = node
                known.pause = FIRST_RETRY
                known.due = now
                known.tried = False
            if key_index is not None:
                known.key_index = key_index

    def due(self, linked: Callable[[str], bool], now: float) -> list[Prospect]:
        """Take the prospects to dial now; each must be given back with `succeeded` or `failed`."""
        dialling = 0
        ready: list[Prospect] = []
        self.exploring = False
        for key, prospect in list(self._all.items()):
            dialling += prospect.dialling
            if prospect.node is not None and linked(prospect.node):
                continue
            self.exploring |= not prospect.tried
            if prospect.dialling:
                continue
            if now - prospect.hinted > FORGET_AFTER:
                del self._all[key]
            elif prospect.due <= now:
                ready.append(prospect)
        # Those that have waited longest: many dead addresses must not keep a living one waiting.
        ready.sort(key=lambda prospect: prospect.due)
        taken = ready[: max(0, AT_ONCE - dialling)]
        for prospect in taken:
            prospect.dialling = True
        return taken

    def succeeded(self, prospect: Prospect, node: str, now: float) -> None:
        """`node` answered there. If it is lost, it is dialled again at once."""
        prospect.dialling = False
        prospect.tried = True
        prospect.node = node
        prospect.hinted = now
        prospect.pause = FIRST_RETRY
        prospect.due = now + prospect.pause

    def failed(self, prospect: Prospect, now: float, *, myself: bool = False) -> None:
        """Nobody admissible answered; the next dial waits twice as long."""
        prospect.dialling = False
        prospect.tried = True
        prospect.key_index += 1
        pause = MYSELF_RETRY if myself else prospect.pause
        prospect.due = now + pause * (0.75 + 0.5 * self._random())
        prospect.pause = min(LONGEST_RETRY, 2 * prospect.pause)

    def lost(self, node: str, now: float) -> None:
        """A link was lost: try its addresses soon."""
        for prospect in self._all.values():
            if prospect.node == node:
                prospect.hinted = now
                prospect.pause = FIRST_RETRY
                prospect.due = now + FIRST_RETRY
