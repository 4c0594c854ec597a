"""What no honest sender sends, and what to say of it."""

from __future__ import annotations

from msgpack.exceptions import UnpackException


class Malformed(ValueError):
    """A message that breaks the protocol; the text says how, for whoever sent it."""


UNREADABLE = (ValueError, TypeError, LookupError, RecursionError, UnpackException)
"""What handling a message may raise whose octets, or fields, are not what they should be.

MessagePack nests deeper than Python's `repr` goes, and errors quote what they are about.
"""


def why(error: Exception) -> str:
    """What is wrong; Python's own words help nobody."""
    return str(error) if isinstance(error, Malformed) else "a malformed message"
