"""What a client may cost: a look at every frame's first nine octets, before anything is made of it.

Frames that carry a request onward are free. All others draw on a store of patience, which time
refills: an honest client never comes near its end, and floods of any kind do (CVE-2019-9512 to
9518, CVE-2023-44487, CVE-2024-27316, CVE-2025-8671).
"""

from __future__ import annotations

import struct

from h2.errors import ErrorCodes

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_FRAME = 16 * 1024  # octets of payload: the least that must be taken, and enough
MAX_BLOCK = 64 * 1024  # octets of one list of fields, as clients are told
# Octets of one list, compressed or not, that are taken all the same: decoding keeps the connection
# alive, and the request alone gets its 431. Beyond, it is a bomb.
MOST_OF_BLOCK = 4 * MAX_BLOCK

_FRAME = struct.Struct(">BHBBL")
_DATA, _HEADERS, _RST_STREAM, _SETTINGS = 0x0, 0x1, 0x3, 0x4
_GOAWAY, _CONTINUATION = 0x7, 0x9
_END_STREAM, _END_HEADERS, _PADDED = 0x1, 0x4, 0x8

_STORE = 1000.0  # of patience, when full
_PER_SECOND = 100.0
_CALMED_BY_REQUEST = 2.0  # some clients send a priority with each
_CALMED_BY_DATA = 2.0  # each piece that is sent earns a WINDOW_UPDATE for the stream and for all
_COST_OF_SETTINGS = 10.0  # every stream is looked at
COST_OF_RESET = 5.0  # a request was begun for nothing
_FIELDS_FOR_ONE = 100  # that were decoded for nothing
_BLOCK_FOR_ONE = 4096  # octets of compressed fields; decoding them is slow


class Abuse(Exception):
    """The client's frames are not borne; the connection ends with this code."""

    def __init__(self, sentence: str, code: ErrorCodes = ErrorCodes.ENHANCE_YOUR_CALM) -> None:
        super().__init__(sentence)
        self.code = code


class Guard:
    """Follows the frames of one client. `now` is in seconds, on any clock."""

    __slots__ = ("_block", "_held", "_last", "_patience", "_skip", "in_block")

    def __init__(self, now: float) -> None:
        self._held = b""  # the beginning of a frame's header
        self._skip = len(PREFACE)  # octets that belong to what has been looked at
        self._block = 0  # octets of the list of fields that is under way
        self.in_block = False
        self._patience = _STORE
        self._last = now

    def look(self, data: bytes, now: float) -> None:
        """Look at what arrived. Raises Abuse."""
        self._earn((now - self._last) * _PER_SECOND)
        self._last = now
        if self._held:
            data = self._held + data
        at = self._skip
        end = len(data) - _FRAME.size
        while at <= end:
            high, low, kind, flags, _ = _FRAME.unpack_from(data, at)
            length = high << 16 | low
            if length > MAX_FRAME:
                raise Abuse("a frame is too large", ErrorCodes.FRAME_SIZE_ERROR)
            self._weigh(kind, flags, length)
            at += _FRAME.size + length
        self._held = data[at:]
        self._skip = max(0, at - len(data))

    def charge(self, cost: float) -> None:
        """Draw on the patience. Raises Abuse."""
        self._patience -= cost
        if self._patience < 0:
            raise Abuse("too many frames that serve no request")

    def sent(self, size: int, wanted: int) -> None:
        """Note that a piece of `size` octets was sent, of `wanted` that there were.

        It earns the answer to it, unless the client's window is what made it small.
        """
        if size == wanted or size >= 1024:
            self._earn(_CALMED_BY_DATA)

    def _earn(self, patience: float) -> None:
        self._patience = min(_STORE, self._patience + patience)

    def _weigh(self, kind: int, flags: int, length: int) -> None:
        if kind == _DATA:
            if flags & _PADDED or not (length or flags & _END_STREAM):
                self.charge(1.0)
        elif kind == _HEADERS:
            self._earn(_CALMED_BY_REQUEST)
            self._block = 0
            self._add_to_block(flags, length)
        elif kind == _CONTINUATION:
            self.charge(1.0)
            self._add_to_block(flags, length)
        elif kind == _RST_STREAM:
            self.charge(COST_OF_RESET)
        else:
            self.charge(_COST_OF_SETTINGS if kind == _SETTINGS else 1.0)

    def _add_to_block(self, flags: int, length: int) -> None:
        self._block += length
        self.charge(length // _BLOCK_FOR_ONE)
        if self._block > MOST_OF_BLOCK:
            raise Abuse("its list of fields is too long")
        self.in_block = not flags & _END_HEADERS


def cost_of_refusal(fields: int) -> float:
    """Return what a list of so many fields costs, which was refused."""
    return COST_OF_RESET + fields // _FIELDS_FOR_ONE


def goaway(last_stream: int, code: ErrorCodes) -> bytes:
    """Write the frame that says which requests will still be answered.

    The library would count the connection as closed with it; here it goes on until they are.
    """
    return _FRAME.pack(0, 8, _GOAWAY, 0, 0) + struct.pack(">LL", last_stream, code)
