"""One Iris end of a tunnel: translate between the flow control of Iris and of native tunnels.

From the program: Iris may send a whole chunk while any allowance is left, so up to a chunk more
than it was granted. A native end never sends more than its credit, so the excess is held here.

To the program: an Iris end grants what it has read only after whole messages. That is never enough
for a message larger than its window. A native end grants while it reassembles, so credit is granted
here in advance.
"""

from __future__ import annotations

from arke_relay.attachments.iris.packets import MAX_TRANSFER
from arke_relay.core.counters import DropCause

MAX_TUNNEL_MESSAGE = 64 * 1024 * 1024
"""Bytes of the largest message sent to an Iris program, which reassembles it in memory."""

Data = tuple[int, bytes]
"""Total and data, as in DATA."""


class TunnelViolation(Exception):
    """An end broke the protocol of a tunnel. `cause` is counted."""

    def __init__(self, text: str, cause: DropCause = DropCause.MALFORMED_TUNNEL_DATA) -> None:
        super().__init__(text)
        self.cause = cause


class IrisTunnelEnd:
    """Counts the credit of both directions.

    `tunnel_id` is the id in messages of the program to the core, and `window` the most credit that
    may be granted to the other end. `max_message` is the largest message that the other end
    accepts, in bytes.
    """

    __slots__ = (
        "_advance",
        "_credit",
        "_granted",
        "_held",
        "_incoming_left",
        "_message_left",
        "_message_size",
        "_ungranted",
        "_unread",
        "_window",
        "closing",
        "id",
        "max_message",
        "number",
    )

    def __init__(self, number: int, tunnel_id: int, window: int, max_message: int) -> None:
        self.number = number
        """The program's number of the tunnel."""
        self.id = tunnel_id
        self.max_message = max_message
        self.closing = False
        """The program has closed it, and some data is still held."""
        self._window = window

        # From the program. All numbers are bytes.
        self._credit = 0  # that the other end has granted
        self._held = b""  # the rest of a chunk that exceeds the credit
        self._incoming_left = 0  # of the current message

        # To the program.
        self._granted = 0  # credit that the other end has left
        self._ungranted = 0  # allowed by the program, and not granted to the other end yet
        self._advance = 0  # granted to the other end before the program allowed it
        self._message_left = 0  # of the current message
        self._message_size = 0
        self._unread: int | None = None  # of whole messages, which the program will allow again

    # From the program.

    def receive(self, size: int, chunk: bytes) -> Data:
        """Take a chunk; return what credit allows to forward now. Raises TunnelViolation."""
        length = len(chunk)
        if self._held or not self._credit:
            raise TunnelViolation("more data than credit", DropCause.CREDIT_EXCEEDED)
        if length > MAX_TRANSFER:
            raise TunnelViolation(f"a chunk of {length} bytes exceeds the limit of {MAX_TRANSFER}")
        if size > self.max_message:
            raise TunnelViolation(
                f"a message of {size} bytes exceeds the receiver's limit of {self.max_message}"
            )
        left = (size or self._incoming_left) - length
        if left < 0:
            raise TunnelViolation("a message is longer than its size field")
        self._incoming_left = left
        self._held = chunk
        return size, self._take_held()

    def add_credit(self, size: int) -> Data | None:
        """Add credit from the other end; return the held data that may be forwarded now."""
        self._credit += size
        return (0, self._take_held()) if self._held else None

    def _take_held(self) -> bytes:
        """Return as much of the held data as credit allows."""
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

    def forward(self, total: int | None, size: int, cost: int) -> None:
        """Count `size` bytes sent to the program, which cost the other end `cost` of its credit.

        `total` is as in DATA; None: whole messages. Raises TunnelViolation.
        """
        if total is None:
            left, whole = 0, size
        else:
            if total > MAX_TUNNEL_MESSAGE:
                raise TunnelViolation(
                    f"a message of {total} bytes exceeds the receiver's limit of "
                    f"{MAX_TUNNEL_MESSAGE}"
                )
            left = (total or self._message_left) - size
            if left < 0:
                raise TunnelViolation("a message is longer than its size field")
            # A message that was given up is allowed again, like one that was read.
            whole = self._message_size - self._message_left if total and self._message_left else 0
            self._message_size = total or self._message_size
            whole += 0 if left else self._message_size
        self._unread = (self._unread or 0) + whole
        self._message_left = left
        self._granted -= cost
        # The framing of small messages costs credit that the program did not allow.
        self._ungranted += cost - size

    def allowed(self, size: int) -> None:
        """The program accepts `size` more bytes."""
        # The first allowance is the window; later ones return what was read.
        self._unread = 0 if self._unread is None else self._unread - size
        repaid = min(size, self._advance)
        self._advance -= repaid
        self._ungranted += size - repaid

    def take_grant(self) -> int:
        """Return the bytes to grant to the other end now; 0: none."""
        half = self._window // 2
        if self._granted > half:
            return 0
        left = self._granted + self._ungranted
        stuck = self._message_left > left and (self._unread or 0) <= 0
        if stuck and left < min(MAX_TRANSFER, half):
            # The program has read all earlier messages, and allows nothing more until it has this
            # one whole: grant in advance.
            self._ungranted += half
            self._advance += half
        size = min(self._ungranted, self._window - self._granted)
        self._ungranted -= size
        self._granted += size
        return size
