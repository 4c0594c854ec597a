"""Addresses worth dialling, and when: hints come in, dials that are due come out.

A dial_target is one join address. It may claim to be a certain node; what it really is only a join
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
class DialTarget:
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


class DialTargets:
    """`random` returns floats in [0, 1): it spreads the dials of many relays."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._all: dict[tuple[str, int], DialTarget] = {}
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
        for key, dial_target in list(self._all.items()):
            dialling += dial_target.dialling
            if dial_target.node is not None and linked(dial_target.node):
                continue
            self.exploring |= not dial_target.tried
            if dial_target.dialling:
                continue
            if now - dial_target.hinted > FORGET_AFTER:
                del self._all[key]
            elif dial_target.due <= now:
                ready.append(dial_target)
        # Those that have waited longest: many dead addresses must not keep a living one waiting.
        ready.sort(key=lambda dial_target: dial_target.due)
        taken = ready[: max(0, AT_ONCE - dialling)]
        for dial_target in taken:
            dial_target.dialling = True
        return taken

    def succeeded(self, dial_target: DialTarget, node: str, now: float) -> None:
        """`node` answered there. If it is lost, it is dialled again at once."""
        dial_target.dialling = False
        dial_target.tried = True
        dial_target.node = node
        dial_target.hinted = now
        dial_target.pause = FIRST_RETRY
        dial_target.due = now + dial_target.pause

    def failed(self, dial_target: DialTarget, now: float, *, myself: bool = False) -> None:
        """Nobody admissible answered; the next dial waits twice as long."""
        dial_target.dialling = False
        dial_target.tried = True
        dial_target.key_index += 1
        pause = MYSELF_RETRY if myself else dial_target.pause
        dial_target.due = now + pause * (0.75 + 0.5 * self._random())
        dial_target.pause = min(LONGEST_RETRY, 2 * dial_target.pause)

    def lost(self, node: str, now: float) -> None:
        """A link was lost: try its addresses soon."""
        for dial_target in self._all.values():
            if dial_target.node == node:
                dial_target.hinted = now
                dial_target.pause = FIRST_RETRY
                dial_target.due = now + FIRST_RETRY
