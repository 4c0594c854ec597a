"""The field lines of one head, read strictly: each name a token, each value free of controls."""

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
_REMEMBERED: Final = 1024  # lines: most of a head is what the same client said before, or another
_MOST_REMEMBERED: Final = 2048  # bytes of one


class Line(NamedTuple):
    """One field."""

    name: bytes  # in lower case, or LOOKALIKE
    field: Field  # in its own spelling
    text: bytes  # as it is written


def read_lines(block: bytes) -> list[Line]:
    """Split what follows a head's first line, the empty line included. Raises MalformedMessage."""
    if block == b"\r\n":
        return []
    if not block.endswith(b"\r\n\r\n"):
        raise MalformedMessage("its head has no end")
    lines = block[:-4].split(b"\r\n")
    # The only controls are the ends of lines: no CR or LF of its own, no NUL, no DEL.
    if len(block) - len(block.translate(None, _CONTROLS)) != 2 * len(lines) + 2:
        raise MalformedMessage("a field has a control character, or its line ends without CR LF")
    if len(lines) > MAX_FIELDS:
        raise MalformedMessage(f"it has more than {MAX_FIELDS} fields", 431)
    if len(block) <= _MOST_REMEMBERED:
        return list(map(_remembered, lines))
    return [
        _remembered(line) if len(line) <= _MOST_REMEMBERED else _read_line(line) for line in lines
    ]


def join(lines: Iterable[Line]) -> bytes:
    """Write these lines again."""
    return b"".join([line[2] for line in lines])


def _read_line(line: bytes) -> Line:
    name, colon, value = line.partition(b":")
    if not colon or not _NAME.fullmatch(name):
        raise MalformedMessage("the name of a field is none, or does not end with a colon")
    value = value.strip(b" \t")
    return Line(_plain(name), (name, value), b"%b: %b\r\n" % (name, value))


_remembered = lru_cache(_REMEMBERED)(_read_line)


def _plain(name: bytes) -> bytes:
    """Return a name in lower case, or LOOKALIKE.

    CGI, WSGI and PHP know a field by its name with underscores for hyphens, some for dots and
    others too: to them `Content_Length` is `Content-Length`. Other names with such characters are
    in use, and harmless.
    """
    lower = name.lower()
    if not _PLAIN_NAME.fullmatch(name) and _ODD.sub(b"-", lower) in GUARDED:
        return LOOKALIKE
    return lower
