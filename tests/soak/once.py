"""Which requests were executed, of those that may be once at most: a bit for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class Once:
    """Reads what members wrote down."""

    def __init__(self) -> None:
        self._seen: dict[str, bytearray] = {}
        self.count: dict[str, int] = {}
        """By caller."""

    def read(self, lines: Iterable[str]) -> Iterator[str]:
        """Take note of a journal; the lines that were there before, in it or in an earlier one."""
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
