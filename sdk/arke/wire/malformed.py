"""The error for messages that break the protocol, and the errors that decoding can raise."""

from __future__ import annotations

from msgpack.exceptions import UnpackException


class Malformed(ValueError):
    """A message breaks the protocol. The text says how; it is sent to the sender."""


DECODE_ERRORS = (ValueError, TypeError, LookupError, RecursionError, UnpackException)
"""What handling a malformed message can raise.

RecursionError is one of them because MessagePack nests deeper than Python's `repr`, which error
texts use.
"""


def describe_malformed(error: Exception) -> str:
    """Describe a decoding error for the sender. The texts of Python's own errors are left out."""
    return str(error) if isinstance(error, Malformed) else "a malformed message"
