"""Parses the field lines of a head, strictly: names are tokens, values have no controls."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from arke_proxy.errors import MalformedMessage
from arke_proxy.http.header_fields import GUARDED, LOOKALIKE, MAX_FIELDS, Field

_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_PLAIN_NAME: Final = re.compile(rb"[0-9A-Za-z-]+")
_ODD: Final = re.compile(rb"[^0-9A-Za-z]")
_CONTROLS: Final = bytes((*range(0x20), 0x7F)).replace(b"\t", b"")
_CACHE_SIZE: Final = 1024  # lines; most lines of a head repeat those of earlier heads
_MAX_CACHED_SIZE: Final = 2048  # bytes of a line


class FieldLine(NamedTuple):
    """One header field."""

    name: bytes  # in lower case, or LOOKALIKE
    field: Field  # as the sender spelled it
    text: bytes  # the whole line, as it is forwarded


def parse_lines(block: bytes) -> list[FieldLine]:
    """Parse what follows a head's first line, with the empty line. Raises MalformedMessage."""
    if block == b"\r\n":
        return []
    if not block.endswith(b"\r\n\r\n"):
        raise MalformedMessage("its head is not complete")
    lines = block[:-4].split(b"\r\n")
    # The only control characters are those of the line ends: no bare CR or LF, no NUL, no DEL.
    if len(block) - len(block.translate(None, _CONTROLS)) != 2 * len(lines) + 2:
        raise MalformedMessage(
            "a field has a control character, or its line does not end with CR LF"
        )
    if len(lines) > MAX_FIELDS:
        raise MalformedMessage(f"it has more than {MAX_FIELDS} fields", 431)
    if len(block) <= _MAX_CACHED_SIZE:
        return list(map(_cached_line, lines))
    return [
        _cached_line(line) if len(line) <= _MAX_CACHED_SIZE else _parse_line(line) for line in lines
    ]


def join(lines: Iterable[FieldLine]) -> bytes:
    """Return these lines as bytes."""
    return b"".join([line[2] for line in lines])


def _parse_line(line: bytes) -> FieldLine:
    name, colon, value = line.partition(b":")
    if not colon or not _NAME.fullmatch(name):
        raise MalformedMessage("a field name is malformed, or not followed by a colon")
    value = value.strip(b" \t")
    return FieldLine(_normalized(name), (name, value), b"%b: %b\r\n" % (name, value))


_cached_line = lru_cache(_CACHE_SIZE)(_parse_line)


def _normalized(name: bytes) -> bytes:
    """Return a name in lower case, or LOOKALIKE.

    CGI, WSGI and PHP replace hyphens in names, and some other characters, by underscores: to them
    `Content_Length` is `Content-Length`. Other names with such characters are harmless.
    """
    lower = name.lower()
    if not _PLAIN_NAME.fullmatch(name) and _ODD.sub(b"-", lower) in GUARDED:
        return LOOKALIKE
    return lower
