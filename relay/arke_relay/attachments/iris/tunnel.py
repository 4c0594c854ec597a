"""One Iris end of a tunnel: what it may send, and what may be sent to it.

An Iris sender may send a chunk as long as its allowance is positive, and so a chunk's length more
than it was granted; a native one never sends more than its credit. An Iris receiver grants again
what it has read as whole messages, and so never enough for one that is larger than its window; a
native one goes on granting while it joins. Here each is made to look like the other.
"""

from __future__ import annotations

from arke_relay.attachments.iris.packets import CHUNK_LIMIT

LARGEST = 64 * 1024 * 1024
"""Octets of the largest message that an Iris program is sent: it would join whatever comes."""

Piece = tuple[int, bytes]
"""Total and data, as in DATA."""


class Broken(Exception):
    """An end did with the tunnel what nobody may; the text says what, `cause` how it is counted."""

    def __init__(self, text: str, cause: str = "malformed_tunnel_data") -> None:
        super().__init__(text)
        self.cause = cause


class IrisTunnel:
    """`name` is what the program's messages call it, `window` the most credit that it may grant.

    `largest` is the largest message that the other end takes, in octets.
    """

    __slots__ = (
        "_credit",
        "_debt",
        "_granted",
        "_held",
        "_missing",
        "_size",
        "_to_come",
        "_ungranted",
        "_unread",
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
        self._credit = 0  # octets that the other end takes
        self._held = b""  # the rest of a chunk, beyond that
        self._to_come = 0  # octets of the message whose first chunk came

        # To the program.
        self._granted = 0  # credit that the other end has left
        self._ungranted = 0  # octets the program takes, beyond the window for now
        self._debt = 0  # octets granted that the program has yet to grant
        self._missing = 0  # octets of the message that is on its way to it
        self._size = 0  # of that message
        self._unread: int | None = None  # octets of whole messages that it has yet to grant again

    # From the program.

    def transfer(self, size: int, chunk: bytes) -> Piece:
        """A chunk came: what there is credit for, to pass on now. Raises Broken."""
        octets = len(chunk)
        if self._held or not self._credit:
            raise Broken("it sent more than it was granted", "credit_exceeded")
        if octets > CHUNK_LIMIT:
            raise Broken(f"a chunk of {octets} bytes is over the limit of {CHUNK_LIMIT}")
        if size > self.largest:
            raise Broken(f"a message of {size} bytes is over the {self.largest} of the other end")
        to_come = (size or self._to_come) - octets
        if to_come < 0:
            raise Broken("a message is longer than it said")
        self._to_come = to_come
        self._held = chunk
        return size, self._paid()

    def allow(self, octets: int) -> Piece | None:
        """The other end takes so much more. Returns what was held and can be passed on."""
        self._credit += octets
        return (0, self._paid()) if self._held else None

    def _paid(self) -> bytes:
        """What there is credit for, of what is held."""
        held, credit = self._held, self._credit
        if len(held) <= credit:
            self._held = b""
            self._credit = credit - len(held)
            return held
        self._held = held[credit:]
        self._credit = 0
        return held[:credit]

    @property
    def holding(self) -> bool:
        return bool(self._held)

    # To the program.

    def carry(self, total: int | None, octets: int, cost: int) -> None:
        """So much passes to the program, and has cost the other end so much credit.

        `total` is None for whole messages; else as in DATA. Raises Broken.
        """
        if total is None:
            missing, whole = 0, octets
        else:
            if total > LARGEST:
                raise Broken(f"a message of {total} bytes is over the {LARGEST} of this end")
            missing = (total or self._missing) - octets
            if missing < 0:
                raise Broken("a message is longer than it said")
            # What was given up is granted again, like what was read.
            whole = self._size - self._missing if total and self._missing else 0
            self._size = total or self._size
            whole += 0 if missing else self._size
        self._unread = (self._unread or 0) + whole
        self._missing = missing
        self._granted -= cost
        # What small messages cost more than they hold was no allowance of the program's.
        self._ungranted += cost - octets

    def granted(self, octets: int) -> None:
        """The program takes so many octets more."""
        # The first grant is the window; what follows it gives back what was read.
        self._unread = 0 if self._unread is None else self._unread - octets
        paid = min(octets, self._debt)
        self._debt -= paid
        self._ungranted += octets - paid

    def grant(self) -> int:
        """What to grant to the other end now; 0: nothing."""
        half = self._window // 2
        if self._granted > half:
            return 0
        left = self._granted + self._ungranted
        stuck = self._missing > left and (self._unread or 0) <= 0
        if stuck and left < min(CHUNK_LIMIT, half):
            # All before it is read, and the program grants nothing before it has the whole message.
            self._ungranted += half
            self._debt += half
        octets = min(self._ungranted, self._window - self._granted)
        self._ungranted -= octets
        self._granted += octets
        return octets
