"""Heads, as the proxy knows them once they are read."""

from __future__ import annotations

from collections.abc import Sequence

from arke_proxy.http.header_fields import Field, tokens

_PRIVATE = (b"no-store", b"private")


class RequestHead:
    """A request that can be forwarded. Once it is read nobody changes it: heads are shared."""

    __slots__ = (
        "begin",
        "chunked",
        "fields",
        "forwarded",
        "host",
        "is_1_0",
        "keep_alive",
        "length",
        "lines",
        "method",
        "target",
        "upgrade",
        "version",
    )

    def __init__(
        self,
        method: bytes,
        target: bytes,
        host: bytes | None,
        fields: Sequence[Field],
        *,
        is_1_0: bool = False,
        length: int | None = None,
        chunked: bool = False,
        keep_alive: bool = True,
        upgrade: bytes | None = None,
        forwarded: Sequence[Field] = (),
        lines: bytes | None = None,
        version: bytes = b"1.1",
    ) -> None:
        self.method = method
        self.target = target  # in origin form, or `*`
        self.host = host  # None only in HTTP/1.0
        self.fields = fields  # end to end, in the client's order and spelling; without those below
        self.is_1_0 = is_1_0
        self.length = length  # of the body; None if it is chunked or there is none
        self.chunked = chunked
        self.keep_alive = keep_alive  # the client is willing
        self.upgrade = upgrade  # the protocol that it asks to switch to, in lower case
        self.forwarded = forwarded  # FORWARDED, with names in lower case: what the client says
        self.lines = lines  # `fields` as they are written, if at hand
        self.version = version  # of HTTP, as the client spoke it
        self.begin: bytes | None = None  # what every backend gets of it, if at hand


class ResponseHead:
    """A response that can be forwarded. Once it is read nobody changes it: heads are shared."""

    __slots__ = (
        "begin",
        "chunked",
        "dated",
        "fields",
        "keep_alive",
        "length",
        "lines",
        "status",
        "status_text",
        "upgrade",
        "version",
    )

    def __init__(
        self,
        status: int,
        status_text: bytes,
        fields: Sequence[Field],
        *,
        length: int | None = None,
        chunked: bool = False,
        keep_alive: bool = True,
        upgrade: bytes | None = None,
        lines: bytes | None = None,
        version: bytes = b"1.1",
        dated: bool = True,
    ) -> None:
        self.status = status
        self.status_text = status_text  # `200 OK`
        self.fields = fields  # end to end, in the backend's order and spelling; without the length
        self.length = length
        self.chunked = chunked
        self.keep_alive = keep_alive  # the backend is willing
        self.upgrade = upgrade  # the protocol that it switches to, with 101; in lower case
        self.lines = lines  # `fields` as they are written, if at hand
        self.version = version  # of HTTP, as the backend spoke it
        self.dated = dated  # it says when it was made, or need not
        self.begin: bytes | None = None  # what every client gets of it, if at hand


def has_body(head: ResponseHead, method: bytes) -> bool:
    """Say whether this answer to `method` has a body, be it empty (RFC 9112, 6.3)."""
    return method != b"HEAD" and head.status not in (204, 304)


def with_cookie(head: ResponseHead, cookie: bytes) -> ResponseHead:
    """Return the head with this `Set-Cookie`, and with what keeps it to the client it is for.

    Nothing in HTTP forbids a cache to hand an answer's cookies to everybody (RFC 9111, 7.3).
    """
    fields = [*head.fields, (b"Set-Cookie", cookie)]
    if head.status != 101 and not any(map(_is_private, head.fields)):
        fields.append((b"Cache-Control", b"private"))  # the stricter directive counts (4.2.1)
    return ResponseHead(
        head.status,
        head.status_text,
        fields,
        length=head.length,
        chunked=head.chunked,
        keep_alive=head.keep_alive,
        upgrade=head.upgrade,
        version=head.version,
        dated=head.dated,
    )


def _is_private(field: Field) -> bool:
    """Say that a cache which others share keeps no answer with this field, nor one alike."""
    name, value = field
    return name.lower() == b"cache-control" and not tokens(value).isdisjoint(_PRIVATE)
