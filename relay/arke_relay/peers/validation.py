"""Hostile bytes become plain values here, within explicit bounds, or `ValueError`.

The predicates take any value and are exact about types: True is not 1, and a subclass is not
the thing itself.
"""

from __future__ import annotations

import re
from typing import Any

import msgpack

_NODE_ID = re.compile(r"[0-9a-f]{16}")  # 64 random bits, drawn when a relay starts
_ITEMS = 16
_STRING_BYTES = 1024
_BINARY_BYTES = 2048  # a sealed certificate under the longest key is under 1.6 KiB


def unpack(data: bytes, *, limit: int) -> Any:
    """Return the one MessagePack value that `data` (at most `limit` bytes) consists of.

    Arrays hold at most 16 items; maps and extensions hold nothing. Raises only `ValueError`.
    """
    if len(data) > limit:
        raise ValueError(f"{len(data)} bytes where {limit} are the most")
    try:
        return msgpack.unpackb(
            data,
            max_array_len=_ITEMS,
            max_map_len=0,
            max_ext_len=0,
            max_str_len=_STRING_BYTES,
            max_bin_len=_BINARY_BYTES,
        )
    except ValueError as error:
        raise ValueError("not one well-formed value") from error


def is_binary(value: object, size: int) -> bool:
    return type(value) is bytes and len(value) == size


def is_integer(value: object, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def is_text(value: object, least: int, most: int) -> bool:
    """Whether `value` is text of `least` to `most` bytes in UTF-8."""
    if type(value) is not str:
        return False
    try:
        return least <= len(value.encode()) <= most
    except UnicodeEncodeError:  # a lone surrogate, from an argument that was not UTF-8
        return False


def is_node_id(value: object) -> bool:
    return type(value) is str and _NODE_ID.fullmatch(value) is not None


def printable(text: str) -> str:
    """Return `text` fit for one line of a log, whoever wrote it."""
    return "".join(character if character.isprintable() else "?" for character in text)
