"""Find requests that were executed twice: one bit for each request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class Executions:
    """The executed requests, from the journals of members."""

    def __init__(self) -> None:
        self._seen: dict[str, bytearray] = {}
        self.count: dict[str, int] = {}
        """Executed requests by caller."""

    def read(self, lines: Iterable[str]) -> Iterator[str]:
        """Record a journal. Yield the lines that occurred before, also in earlier journals."""
        for line in lines:
            caller, _, text = line.partition(" ")
            number = int(text)
            bits = self._seen.setdefault(caller, bytearray())
            at, bit = number >> 3, 1 << (number & 7)
            if at >= len(bits):
                bits.extend(bytes(at + 1024 - len(bits)))
            if bits[at] & bit:
                yield line.strip()
            else:
                bits[at] |= bit
                self.count[caller] = self.count.get(caller, 0) + 1
