"""One Iris end of a tunnel: what it may send, and what may be sent to it.

An Iris sender may send a chunk as long as its allowance is positive, and so a chunk's length more
than it was granted; a native one never sends more than its credit. An Iris receiver grants again
what it has read as whole messages, and so never enough for one that is larger than its window; a
native one goes on granting while it joins. Here each is made to look like the other.
"""

from __future__ import annotations

from arke_relay.attachments.iris.packets import CHUNK_LIMIT


class Broken(Exception):
    """The program did with its tunnel what nobody may; the text says what."""


class IrisTunnel:
    """`name` is what the program's messages call it, `window` the most credit that it may grant.

    `largest` is the largest message that the other end takes, in octets.
    """

    __slots__ = (
        "_allowance",
        "_debt",
        "_granted",
        "_held",
        "_missing",
        "_to_come",
        "_ungranted",
        "_window",
        "closing",
        "id",
        "largest",
        "name",
    )

    def __init__(self, number: int, name: int, window: int, largest: int) -> None:
        self.id = number
        self.name = name
        self.largest = largest
        self.closing = False
        """The program has closed it, and something of it is still held."""
        self._window = window

        # From the program.
        self._allowance = 0
        self._to_come = 0  # octets of the message whose first chunk came
        self._held: tuple[int, bytes] | None = None  # a chunk beyond the credit

        # To the program.
        self._granted = 0  # credit that the other end has left
        self._ungranted = 0  # octets the program takes, beyond the window for now
        self._debt = 0  # octets granted that the program has yet to grant
        self._missing = 0  # octets of the message that is on its way to it

    # From the program.

    def transfer(self, size: int, chunk: bytes) -> tuple[int, bytes] | None:
        """A chunk came: the total and the data to pass on; None when it has to wait for credit.

        Raises Broken.
        """
        octets = len(chunk)
        if self._allowance <= 0:
            raise Broken("it sent more than it was granted")
        if octets > CHUNK_LIMIT:
            raise Broken(f"a chunk of {octets} bytes is over the limit of {CHUNK_LIMIT}")
        if size > self.largest:
            raise Broken(f"a message of {size} bytes is over the {self.largest} of the other end")
        to_come = (size or self._to_come) - octets
        if to_come < 0:
            raise Broken("a message is longer than it said")
        self._to_come = to_come
        self._allowance -= octets
        if self._allowance < 0:
            self._held = size, chunk
            return None
        return size, chunk

    def allow(self, octets: int) -> tuple[int, bytes] | None:
        """The other end grants so much more. Returns a chunk that waited for it."""
        self._allowance += octets
        if self._allowance < 0:
            return None
        held, self._held = self._held, None
        return held

    @property
    def holding(self) -> bool:
        return self._held is not None

    # To the program.

    def carry(self, total: int | None, octets: int, cost: int) -> None:
        """So much passes to the program, and has cost the other end so much credit.

        `total` is None for whole messages; else as in DATA.
        """
        self._granted -= cost
        # What small messages cost more than they hold was no allowance of the program's.
        self._ungranted += cost - octets
        self._missing = 0 if total is None else max(0, (total or self._missing) - octets)

    def granted(self, octets: int) -> int:
        """The program takes so many octets more. Returns what to grant to the other end."""
        paid = min(octets, self._debt)
        self._debt -= paid
        self._ungranted += octets - paid
        return self.grant()

    def grant(self) -> int:
        """What to grant to the other end now; 0: nothing."""
        half = self._window // 2
        if self._granted > half:
            return 0
        if self._missing and not self._ungranted and self._granted < min(CHUNK_LIMIT, half):
            # The program grants nothing before it has the whole message.
            self._ungranted = half
            self._debt += half
        octets = min(self._ungranted, self._window - self._granted)
        self._ungranted -= octets
        self._granted += octets
        return octets
