"""Limits on abusive HTTP/2 clients: floods of frames, and oversized header blocks.

Every frame header is checked before the library parses the frame. Frames that advance a request are
free; all others draw on a budget that refills with time. A normal client uses little of it;
floods of any kind exhaust it (CVE-2019-9512 to 9518, CVE-2023-44487, CVE-2024-27316,
CVE-2025-8671).
"""

from __future__ import annotations

import struct

from h2.errors import ErrorCodes

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_FRAME = 16 * 1024  # bytes of payload: the minimum that RFC 9113 allows
MAX_HEADER_LIST = 64 * 1024  # bytes of one header list, sent to clients in SETTINGS
# Bytes of one header list, compressed or not, that are still decoded. Decoding keeps the connection
# usable, and only the request is rejected, with 431. More is taken for a compression bomb.
MAX_DECODED_LIST = 4 * MAX_HEADER_LIST

_FRAME_HEADER = struct.Struct(">BHBBL")
_DATA, _HEADERS, _RST_STREAM, _SETTINGS = 0x0, 0x1, 0x3, 0x4
_GOAWAY, _CONTINUATION = 0x7, 0x9
_END_STREAM, _END_HEADERS, _PADDED = 0x1, 0x4, 0x8

_BUDGET = 1000.0  # when full
_REFILL_PER_SECOND = 100.0
_REFILL_PER_REQUEST = 2.0  # some clients send a PRIORITY frame with each request
_REFILL_PER_DATA = 2.0  # each DATA frame sent causes a WINDOW_UPDATE for stream and connection
_COST_OF_SETTINGS = 10.0  # each stream's window is updated
COST_OF_RESET = 5.0  # a request was started and then dropped
_FIELDS_PER_POINT = 100  # header fields that were decoded for a rejected request
_BLOCK_BYTES_PER_POINT = 4096  # compressed header fields; decoding them is slow


class AbusiveFrames(Exception):
    """The client exceeds a limit; the connection is closed with error `code`."""

    def __init__(self, sentence: str, code: ErrorCodes = ErrorCodes.ENHANCE_YOUR_CALM) -> None:
        super().__init__(sentence)
        self.code = code


class AbuseLimits:
    """Follows the frames of one client. `now` is in seconds, on any clock."""

    __slots__ = ("_block_size", "_budget", "_partial", "_skip", "_updated", "in_header_block")

    def __init__(self, now: float) -> None:
        self._partial = b""  # the first bytes of a frame header
        self._skip = len(PREFACE)  # bytes before the next frame header
        self._block_size = 0  # bytes so far of the current header block
        self.in_header_block = False  # its END_HEADERS has not arrived
        self._budget = _BUDGET
        self._updated = now

    def check(self, data: bytes, now: float) -> None:
        """Check the frame headers in `data`. Raises AbusiveFrames."""
        self._refill((now - self._updated) * _REFILL_PER_SECOND)
        self._updated = now
        if self._partial:
            data = self._partial + data
        at = self._skip
        end = len(data) - _FRAME_HEADER.size
        while at <= end:
            high, low, kind, flags, _ = _FRAME_HEADER.unpack_from(data, at)
            length = high << 16 | low
            if length > MAX_FRAME:
                raise AbusiveFrames("a frame is too large", ErrorCodes.FRAME_SIZE_ERROR)
            self._check_frame(kind, flags, length)
            at += _FRAME_HEADER.size + length
        self._partial = data[at:]
        self._skip = max(0, at - len(data))

    def charge(self, cost: float) -> None:
        """Draw on the budget. Raises AbusiveFrames if it is exhausted."""
        self._budget -= cost
        if self._budget < 0:
            raise AbusiveFrames("too many frames that serve no request")

    def on_data_sent(self, size: int, wanted: int) -> None:
        """Refill for a DATA frame of `size` bytes, when `wanted` bytes were available.

        A frame that is small because of the client's own small window earns nothing.
        """
        if size == wanted or size >= 1024:
            self._refill(_REFILL_PER_DATA)

    def _refill(self, points: float) -> None:
        self._budget = min(_BUDGET, self._budget + points)

    def _check_frame(self, kind: int, flags: int, length: int) -> None:
        if kind == _DATA:
            if flags & _PADDED or not (length or flags & _END_STREAM):
                self.charge(1.0)
        elif kind == _HEADERS:
            self._refill(_REFILL_PER_REQUEST)
            self._block_size = 0
            self._add_to_block(flags, length)
        elif kind == _CONTINUATION:
            self.charge(1.0)
            self._add_to_block(flags, length)
        elif kind == _RST_STREAM:
            self.charge(COST_OF_RESET)
        else:
            self.charge(_COST_OF_SETTINGS if kind == _SETTINGS else 1.0)

    def _add_to_block(self, flags: int, length: int) -> None:
        self._block_size += length
        self.charge(length // _BLOCK_BYTES_PER_POINT)
        if self._block_size > MAX_DECODED_LIST:
            raise AbusiveFrames("a list of header fields is too large")
        self.in_header_block = not flags & _END_HEADERS


def cost_of_rejection(fields: int) -> float:
    """Return the cost of a header list with this many fields that was rejected."""
    return COST_OF_RESET + fields // _FIELDS_PER_POINT


def goaway_frame(last_stream: int, code: ErrorCodes) -> bytes:
    """Write a GOAWAY frame: requests up to `last_stream` will still be answered.

    The library's own method would close its connection, and refuse to send those responses.
    """
    return _FRAME_HEADER.pack(0, 8, _GOAWAY, 0, 0) + struct.pack(">LL", last_stream, code)
