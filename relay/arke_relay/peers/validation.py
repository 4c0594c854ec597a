"""Decode untrusted bytes into plain values within explicit limits, or raise `ValueError`.

The predicates accept any value and compare exact types: True is not an integer, and an instance
of a subclass does not count.
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
    """Decode `data` (at most `limit` bytes) as exactly one MessagePack value.

    Arrays have at most 16 items; maps and extensions must be empty. Raises only `ValueError`.
    """
    if len(data) > limit:
        raise ValueError(f"must have at most {limit} bytes (got {len(data)})")
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
        raise ValueError("not exactly one well-formed value") from error


def is_binary(value: object, size: int) -> bool:
    return type(value) is bytes and len(value) == size


def is_integer(value: object, minimum: int, maximum: int) -> bool:
    return type(value) is int and minimum <= value <= maximum


def is_text(value: object, minimum: int, maximum: int) -> bool:
    """Return whether `value` is text of `minimum` to `maximum` bytes in UTF-8."""
    if type(value) is not str:
        return False
    try:
        return minimum <= len(value.encode()) <= maximum
    except UnicodeEncodeError:  # a lone surrogate, from an argument that was not UTF-8
        return False


def is_node_id(value: object) -> bool:
    return type(value) is str and _NODE_ID.fullmatch(value) is not None
