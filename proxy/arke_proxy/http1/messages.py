"""Heads, as the proxy knows them once they are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from arke_proxy.http1.fields import Field


class RequestHead(NamedTuple):
    """A request that can be forwarded."""

    method: bytes
    target: bytes  # in origin form, or `*`
    is_1_0: bool
    host: bytes | None  # None only in HTTP/1.0
    fields: Sequence[Field]  # end to end, in the client's order and spelling; without those below
    length: int | None  # of the body; None if it is chunked or there is none
    chunked: bool
    keep_alive: bool  # the client is willing
    upgrade: bytes | None = None  # the protocol that it asks to switch to, in lower case
    forwarded: Sequence[Field] = ()  # FORWARDED, with names in lower case: what the client says
    lines: bytes | None = None  # `fields` as they are written, if at hand
    begin: bytes | None = None  # what every back end gets of it, if at hand


class ResponseHead(NamedTuple):
    """A response that can be forwarded."""

    status: int
    status_text: bytes  # `200 OK`
    fields: Sequence[Field]  # end to end, in the back end's order and spelling; without the length
    length: int | None
    chunked: bool
    keep_alive: bool  # the back end is willing
    upgrade: bytes | None = None  # the protocol that it switches to, with 101; in lower case
    lines: bytes | None = None  # `fields` as they are written, if at hand
    begin: bytes | None = None  # what every client gets of it, if at hand


def has_body(head: ResponseHead, method: bytes) -> bool:
    """Say whether this answer to `method` has a body, be it empty (RFC 9112, 6.3)."""
    return method != b"HEAD" and head.status not in (204, 304)


def with_field(head: ResponseHead, name: bytes, value: bytes) -> ResponseHead:
    """Return the head with one field more."""
    return head._replace(fields=(*head.fields, (name, value)), lines=None, begin=None)
