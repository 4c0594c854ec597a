"""Parsed heads of requests and responses."""

from __future__ import annotations

from collections.abc import Sequence

from arke_proxy.http.header_fields import Field, tokens

_PRIVATE = (b"no-store", b"private")


class RequestHead:
    """The head of a request that can be forwarded. Immutable after parsing: heads are cached."""

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
        # End-to-end fields, in the client's order and spelling. Fields that other attributes hold,
        # such as Host and Content-Length, are left out.
        self.fields = fields
        self.is_1_0 = is_1_0
        self.length = length  # of the body; None if it is chunked or there is none
        self.chunked = chunked
        self.keep_alive = keep_alive  # the client can keep the connection open
        self.upgrade = upgrade  # the protocol to switch to, in lower case
        self.forwarded = forwarded  # the fields in FORWARDED, with names in lower case
        self.lines = lines  # `fields` as bytes, if available
        self.version = version  # the client's version of HTTP
        self.begin: bytes | None = None  # the serialized part that is the same for all backends


class ResponseHead:
    """The head of a response that can be forwarded. Immutable after parsing: heads are cached."""

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
        self.status_text = status_text  # such as `200 OK`
        self.fields = (
            fields  # end-to-end fields, in the backend's order and spelling; without Content-Length
        )
        self.length = length
        self.chunked = chunked
        self.keep_alive = keep_alive  # the backend can keep the connection open
        self.upgrade = upgrade  # the protocol that a 101 response switches to, in lower case
        self.lines = lines  # `fields` as bytes, if available
        self.version = version  # the backend's version of HTTP
        self.dated = dated  # it has a Date field, or needs none
        self.begin: bytes | None = None  # the serialized part that is the same for all clients


def has_body(head: ResponseHead, method: bytes) -> bool:
    """Say whether this response to `method` has a body, which may be empty (RFC 9112, 6.3)."""
    return method != b"HEAD" and head.status not in (204, 304)


def with_cookie(head: ResponseHead, cookie: bytes) -> ResponseHead:
    """Return the head with this `Set-Cookie`, and with `Cache-Control: private`.

    HTTP allows a shared cache to send a stored response's cookies to all clients (RFC 9111, 7.3).
    """
    fields = [*head.fields, (b"Set-Cookie", cookie)]
    if head.status != 101 and not any(map(_is_private, head.fields)):
        fields.append(
            (b"Cache-Control", b"private")
        )  # the stricter directive applies (RFC 9111, 4.2.1)
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
    """Say whether this field forbids shared caches to store the response."""
    name, value = field
    return name.lower() == b"cache-control" and not tokens(value).isdisjoint(_PRIVATE)
