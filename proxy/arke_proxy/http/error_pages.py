"""The proxy's own responses: an honest sentence each, in the form that the client likes best."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus

from arke_proxy.errors import ProxyError
from arke_proxy.http.date import http_date
from arke_proxy.http.header_fields import Field

_RETRY_AFTER = 1  # seconds; members come and go in less
_TEXT = "text/plain"
_JSON = "application/json"
_HTML = "text/html"
_FORMS = (_TEXT, _JSON, _HTML)  # of equals, the first is taken
_MOST = 1000  # octets of an Accept field that are looked at

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{status} {phrase}</title>
<h1>{status} {phrase}</h1>
<p>{sentence}
"""


def own_response(
    error: ProxyError, now: float, connection: bytes, *, with_body: bool, accept: bytes = b""
) -> bytes:
    """Write the whole response that tells a client what went wrong.

    `now` is in seconds since 1970; `connection` is the line that says whether the connection stays
    open. The response to HEAD goes without its body.
    """
    fields, body = own_message(error, now, accept)
    status = HTTPStatus(error.status)
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode()
    lines = b"".join([b"%b: %b\r\n" % field for field in fields])
    return b"".join((head, lines, connection, b"\r\n", body if with_body else b""))


def own_message(error: ProxyError, now: float, accept: bytes = b"") -> tuple[list[Field], bytes]:
    """Return the fields and the body of such a response; its status is that of the error.

    `Server-Timing: arke` says why. A backend could say it too, and another proxy of ours behind
    this one does; but what they have said has `Via`, and this has none.
    """
    form = preferred(accept[:_MOST])
    body = _body(error, form)
    fields = [
        (b"Date", http_date(now)),
        (b"Server", b"arke"),
        (b"Server-Timing", f'arke;desc="{error.code}"'.encode()),
        (b"Content-Type", f"{form}; charset=utf-8".encode() if form != _JSON else form.encode()),
        (b"Content-Length", b"%d" % len(body)),
        (b"Cache-Control", b"no-store"),
        (b"X-Content-Type-Options", b"nosniff"),  # it may repeat what the client sent
    ]
    if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
        fields.append((b"Retry-After", b"%d" % _RETRY_AFTER))
    return fields, body


def accept_of(fields: Iterable[Field]) -> bytes:
    """Return what a request says about the forms it likes."""
    return b",".join([value for name, value in fields if name.lower() == b"accept"])


@lru_cache(maxsize=256)
def preferred(accept: bytes) -> str:
    """Choose among text, JSON and HTML by an Accept field (RFC 9110, 12.5.1); text if in doubt."""
    ranges = dict(_range(part) for part in accept.decode("latin-1").lower().split(","))

    def quality(form: str) -> float:
        kind = form.partition("/")[0]
        for pattern in (form, f"{kind}/*", "*/*"):
            if pattern in ranges:
                return ranges[pattern]
        return 0.0

    return max(_FORMS, key=quality)


def _range(part: str) -> tuple[str, float]:
    name, *parameters = [word.strip() for word in part.split(";")]
    quality = 1.0
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                quality = float(parameter[2:])
            except ValueError:
                quality = 0.0
    return name, quality if 0.0 <= quality <= 1.0 else 0.0


def _body(error: ProxyError, form: str) -> bytes:
    status = HTTPStatus(error.status)
    match form:
        case "application/json":
            story = {"status": status.value, "error": error.code, "detail": str(error)}
            return json.dumps(story).encode() + b"\n"
        case "text/html":
            sentence = html.escape(str(error))
            page = _PAGE.format(status=status.value, phrase=status.phrase, sentence=sentence)
            return page.encode(errors="replace")
        case _:
            return f"{error}\n".encode(errors="replace")
